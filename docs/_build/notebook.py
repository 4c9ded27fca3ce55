"""Notebooks as pages, and their execution: cells run in order, and their outputs are stored in the notebook.

``python docs/_build/notebook.py FILE.ipynb`` executes a notebook in a new interpreter and stores the outputs in it.
Only what the tutorials need: text, errors that stop the run, tables of pandas and pictures of Pillow (as JPEG, which
Jupyter itself would store as PNG, some ten times larger). Replaces a Jupyter server and its kernel.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

JPEG_QUALITY = 88


def to_markdown(path: Path) -> str:
    """Return a notebook as Markdown, pictures included as data URIs."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        parts += [_output(one) for one in cell["outputs"]]
    return "\n\n".join(parts)


def _output(output: dict[str, Any]) -> str:
    if output["output_type"] == "stream":
        return f"```text\n{''.join(output['text']).rstrip()}\n```"
    data = output["data"]
    if "image/jpeg" in data:
        return f"![Output](data:image/jpeg;base64,{data['image/jpeg'].strip()})"
    if "text/html" in data:
        return "".join(data["text/html"])
    return f"```text\n{''.join(data['text/plain'])}\n```"


def execute(notebook: dict[str, Any]) -> None:
    """Run the code cells in order, in this process, and store their outputs in the notebook.

    Raises:
        Exception: what a cell raises; the cells after it do not run.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    count = 0
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        count += 1
        cell["execution_count"] = count
        cell["outputs"] = []
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            value = _run("".join(cell["source"]), f"<cell {count}>", names)
        if printed.getvalue():
            cell["outputs"].append({"output_type": "stream", "name": "stdout", "text": _lines(printed.getvalue())})
        if value is not None:
            data = _shown(value)
            cell["outputs"].append(
                {"output_type": "execute_result", "execution_count": count, "data": data, "metadata": {}}
            )


def _run(source: str, name: str, names: dict[str, Any]) -> Any:
    """Run one cell and return the value of its last line, if that is an expression."""
    tree = ast.parse(source, name)
    last = ast.Expression(tree.body.pop().value) if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), names)
    return None if last is None else eval(compile(last, name, "eval"), names)


def _shown(value: Any) -> dict[str, Any]:
    from PIL import Image

    if isinstance(value, Image.Image):
        jpeg = io.BytesIO()
        value.convert("RGB").save(jpeg, "JPEG", quality=JPEG_QUALITY)
        return {
            "image/jpeg": base64.b64encode(jpeg.getvalue()).decode(),
            "text/plain": [f"<a picture of {value.width} x {value.height} pixels>"],
        }
    data: dict[str, Any] = {"text/plain": _lines(repr(value))}
    if hasattr(value, "_repr_html_"):
        data["text/html"] = _lines(value._repr_html_())
    return data


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def main() -> None:
    """Execute the notebook that the command line names, in an empty folder, and write it back."""
    path = Path(sys.argv[1]).absolute()
    notebook = json.loads(path.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        execute(notebook)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
