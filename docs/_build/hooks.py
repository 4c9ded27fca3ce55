"""Hooks of mkdocs: they add the pages that are generated, and make links of the repository work in the site.

mkdocs imports this file by path (``hooks`` in mkdocs.yml), without its folder on ``sys.path``.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).parent))

import notebook
import reference

ROOT = Path(__file__).parents[2]
SHOWN = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "infra/README.md": "infra.md",
    **{
        f"examples/{name}/README.md": f"examples/{name}.md"
        for name in ("s3_folder", "stylised_training_data", "nightly_retraining")
    },
}
"""Pages of the repository outside docs/, and their places in the site."""
_LOADED = re.compile(r"""<(?:script|img|iframe)[^>]+src=["']?https?:|<link[^>]+rel="stylesheet"[^>]+href="https?:""")
_LINK = re.compile(r"(\]\()([^)#\s]+)([^)]*\))")


def on_config(config: Any) -> Any:
    """Put one page for each command into the navigation, before the hand-written pages of the reference."""
    (pages,) = (section["Reference"] for section in config.nav if "Reference" in section)
    pages[1:1] = [{"Commands": [{verb: f"reference/{verb}.md"} for verb in reference.VERBS]}]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages."""
    texts = {place: (ROOT / source).read_text(encoding="utf-8") for source, place in SHOWN.items()}
    texts |= reference.pages()
    for file in list(files):
        if file.src_uri.endswith(".ipynb"):
            files.remove(file)
            texts[file.src_uri.replace(".ipynb", ".md")] = notebook.to_markdown(Path(file.abs_src_path))
    for place, text in texts.items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Return the page with links that work in the site.

    Links are written for readers of the repository: relative to the file. A link to a page of the site leads to that
    page, a link to any other file of the repository leads to the repository on the web.
    """
    sources = {place: source for source, place in SHOWN.items()}
    here = page.file.src_uri
    folder = posixpath.dirname(sources.get(here, f"docs/{here}"))

    def moved(match: re.Match[str]) -> str:
        before, link, after = match.groups()
        if ":" in link or link.startswith("/"):
            return match[0]
        target = posixpath.normpath(posixpath.join(folder, link))
        place = SHOWN.get(target, target.removeprefix("docs/"))
        place = place.removesuffix(".ipynb") + ".md" if place.endswith(".ipynb") else place
        if (target.startswith("docs/") or target in SHOWN) and files.get_file_from_path(place):
            return before + posixpath.relpath(place, posixpath.dirname(here) or ".") + after
        if (ROOT / target).exists():
            return f"{before}{config.extra['repository']}/blob/main/{target}{after}"
        return match[0]  # mkdocs itself reports a link that leads nowhere

    return _LINK.sub(moved, markdown)


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Stop the build if a page would load something from another server: the site must work without a network."""
    found = _LOADED.search(output)
    if found:
        raise PluginError(f"{page.file.src_uri} loads from another server: {found[0]}...")
    return output
