"""What strangers' data and a careless command line must not be able to do: docs/security.md makes these promises."""

from __future__ import annotations

import ast
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylemill.cli.main import VERBS, WRONG_USE, main
from stylemill.cli.submit import SUBMITTABLE
from stylemill.errors import ConfigError, StylemillError
from stylemill.storage import Storage, join
from stylemill.storage.uri import is_inside, key_problem, resolve

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pipeline" / "stylemill"
PLANTED = "hunter2-planted"
SPOKEN = {
    "train": ["--style-image", "s.jpg", "--content", "c", "--out", "o"],
    "stylize": ["--model", "m.safetensors", "--input", "i", "--out", "o"],
    "retrain": ["--style-image", "s.jpg", "--content", "c", "--out", "o", "--holdout", "h", "--registry", "r"],
    "evaluate": ["--model", "m.safetensors", "--content", "c", "--out", "o"],
    "manifest verify": ["--uri", "o"],
    "manifest summary": ["--uri", "o"],
    "manifest repair": ["--uri", "o"],
    "manifest gc": ["--uri", "o"],
}
"""A right command line for each verb that can be submitted."""


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, (str(self._path),)


def pickles(mark: Path) -> list[bytes]:
    import io

    import torch

    archive = io.BytesIO()
    torch.save({"state": Bomb(mark)}, archive)
    return [pickle.dumps(Bomb(mark)), archive.getvalue()]


@pytest.mark.parametrize("which", [0, 1], ids=["pickle", "torch archive"])
def test_a_pickle_in_storage_is_never_run(which: int, tmp_path: Path):
    from stylemill.nn.loss_networks.vgg import parse_vgg_weights
    from stylemill.style_model import load_style_model
    from stylemill.training.checkpoint import STATE

    mark = tmp_path / "it-ran"
    data = pickles(mark)[which]
    place = tmp_path / "bomb"
    place.write_bytes(data)
    with pytest.raises(StylemillError):
        load_style_model(Storage(), str(place))
    with pytest.raises(ConfigError):
        parse_vgg_weights(data, str(place))
    assert STATE.endswith(".safetensors")
    assert not mark.exists()
    pickle.loads(pickle.dumps(Bomb(mark)))  # noqa: S301 (the bomb does go off where somebody unpickles it)
    assert mark.exists()


def test_no_code_reads_pickles_but_those_of_its_own_run():
    found = set()
    for path in [*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("jobs/**/*.py"), *ROOT.glob("infra/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                called = ast.unparse(node.func)
                given_ = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                if called in ("torch.load", "np.load", "numpy.load", "joblib.load", "dill.load", "dill.loads"):
                    if given_.get("weights_only") != "True":
                        found.add((path.name, called))
                elif called in (
                    "pickle.load",
                    "pickle.loads",
                    "cloudpickle.loads",
                    "yaml.unsafe_load",
                    "yaml.full_load",
                ):
                    found.add((path.name, called))
    # Samples between the actors of one run: never in storage, and Ray pickles all that it moves anyway. An exception of
    # a local worker: the worker itself pickled it, to see whether it can be sent.
    assert found == {("gpu_actors.py", "pickle.loads"), ("local_link.py", "pickle.loads")}


@given(key=st.text(alphabet=st.sampled_from("ab/.\\~%: \0ü"), min_size=1, max_size=12))
def test_no_key_leads_out_of_the_output(key: str):
    if key_problem(key) is None:
        for root in ("/out/images/waves", "s3://bucket/out/images/waves"):
            place = join(root, key)
            assert is_inside(place, root) and place != root
            assert is_inside(os.path.normpath(place.removeprefix("s3:/")), root.removeprefix("s3:/"))


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/passwd", "a//b", "./x", "..", "a/..", "a\0b"])
def test_keys_that_would_are_refused(key: str):
    assert key_problem(key)


def test_every_verb_that_can_be_submitted_is_tried_here():
    assert set(SUBMITTABLE) <= set(SPOKEN)
    assert {spoken.split()[0] for spoken in SPOKEN} <= set(VERBS)


@pytest.mark.parametrize("verb", SPOKEN)
def test_no_secret_of_the_environment_gets_into_a_config(
    verb: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "RAY_AUTH_TOKEN", "GOOGLE_TOKEN"):
        monkeypatch.setenv(name, PLANTED)
    assert main([*verb.split(), *SPOKEN[verb], "--print-config"]) == 0
    shown = capfd.readouterr()
    assert shown.out and PLANTED not in shown.out + shown.err


def test_debugging_output_is_ours_alone():
    # That of the libraries holds the headers of requests, and so session tokens.
    code = "import logging; from stylemill.cli.main import main; main(['styles', '--help']);"
    code += "print(*(logging.getLogger(name)"
    code += ".isEnabledFor(logging.DEBUG) for name in ('botocore.auth', 'stylemill.cli.main', 'stylemill.storage')))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "STYLEMILL_LOG": "DEBUG"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.endswith("False True True\n")


def locations() -> list[tuple[str, str]]:
    return [(verb, flag) for verb, words in SPOKEN.items() for flag in words[::2]]


@pytest.mark.parametrize(
    "location",
    [
        f"s3://key:{PLANTED}@bucket/x",
        f"https://me:{PLANTED}@host/x.jpg",
        f"https://host/x.jpg?X-Amz-Signature={PLANTED}",
    ],
    ids=["key", "password", "signature"],
)
@pytest.mark.parametrize(("verb", "flag"), locations())
def test_a_location_with_a_credential_is_refused_with_the_cure_and_never_shown(
    verb: str, flag: str, location: str, capfd: pytest.CaptureFixture[str]
):
    words = SPOKEN[verb]
    at = words.index(flag) + 1
    command = [*verb.split(), *words[:at], location, *words[at + 1 :], "--print-config"]
    assert main(command) == WRONG_USE
    shown = capfd.readouterr()
    assert PLANTED not in shown.out + shown.err
    assert flag.lstrip("-").replace("-", "_") in shown.err and "carries a credential" in shown.err
    assert "environment" in shown.err


@pytest.mark.parametrize("command", [["--inptu", f"s3://k:{PLANTED}@b/x"], [f"--inptu=s3://k:{PLANTED}@b/x"]])
def test_a_mistyped_flag_does_not_repeat_a_credential(command: list[str], capfd: pytest.CaptureFixture[str]):
    assert main(["stylize", *command]) == WRONG_USE
    assert PLANTED not in capfd.readouterr().err


def test_a_config_file_with_a_credential_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    file = tmp_path / "job.yaml"
    file.write_text(f"model: m\ninput: s3://k:{PLANTED}@bucket/x\nout: o\n")
    assert main(["stylize", "--config", str(file), "--print-config"]) == WRONG_USE
    assert PLANTED not in capfd.readouterr().err


def test_signed_urls_are_refused_as_sources_too():
    with pytest.raises(ConfigError, match="carries a credential") as caught:
        resolve(f"https://host/a.jpg?sig={PLANTED}")
    assert PLANTED not in str(caught.value)
    assert resolve("https://host/a.jpg?size=2") == "https://host/a.jpg?size=2"
    assert resolve("s3://bucket/a?key=1.jpg") == "s3://bucket/a?key=1.jpg"
    assert resolve("abfs://container@account.dfs.core.windows.net/x").endswith("/x")


OPENS_ITS_OWN_IMAGES = {
    "demo/library.py",  # photographs of the installed scikit-image
    "training/tensorboard.py",  # a grid that this process has encoded
    "training/worker.py",  # the style image as the driver has scaled and encoded it
    "training/export.py",  # likewise
}


def test_images_of_others_are_decoded_in_the_child_process_only():
    """images/ decodes; elsewhere only the isolated decoder may be used."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        if name.startswith("images/"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            opens = (
                isinstance(node, ast.Attribute) and node.attr == "open" and ast.unparse(node.value).endswith("Image")
            )
            decodes = isinstance(node, ast.ImportFrom) and node.module in (
                "stylemill.images.decode",
                "stylemill.images.formats.plugins",
            )
            if opens or (decodes and {"decode", "open_image"} & {alias.name for alias in node.names}):
                found.add(name)
            # Only the user of a bulk run may switch the child off, with --isolate-decoding.
            assert not (isinstance(node, ast.keyword) and node.arg == "isolate_decoding"), name
    assert found == OPENS_ITS_OWN_IMAGES
