"""``stylemill paint`` in this process: where results go, what fails alone, standard input and output."""

from __future__ import annotations

import io
import itertools
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylemill.cli.main import DONE, FAILED, WRONG_USE, main
from stylemill.config import from_mapping
from stylemill.storage import Storage
from stylemill.storage.sources import find_sources
from stylemill.stylizing.config import StylizeConfig
from stylemill.stylizing.paint import Painter
from stylemill.stylizing.plan import TwinFinder, plan_row
from stylemill.stylizing.preflight import prepare
from stylemill.stylizing.read import Reader
from stylemill.stylizing.write import Writer
from tests.drawn import image_bytes
from tests.processes import environment, kill_group, start_stylemill, wait_for
from tests.web import web_server

Paint = Callable[..., int]

FETCH_PATIENCE_S = 60.0
"""Less than the time after which a fetch that drips is given up; not a measurement."""


@pytest.fixture
def paint(style_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paint:
    """Return the verb as a function, called in an empty folder with one model."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments: object, model: Path = style_file) -> int:
        return main(["paint", *map(str, arguments), "--model", str(model)])

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of photos: an animation, alpha, a picture below, one that is damaged, one that is none."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(image_bytes(40, 60, 1))
    (folder / "deep" / "b.png").write_bytes(image_bytes(30, 20, 2, "PNG"))
    rgba = Image.open(io.BytesIO(image_bytes(30, 30, 3, "PNG"))).convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize((30, 30)))
    rgba.save(folder / "alpha.tif")
    frames = [Image.open(io.BytesIO(image_bytes(24, 24, seed, "PNG"))) for seed in range(3)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:], duration=70)
    (folder / "damaged.jpg").write_bytes(image_bytes(200, 200)[:1500])
    (folder / "notes.md").write_bytes(b"Shot on a rainy Sunday.\n" * 20)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def bulk(source: Path, out: Path, model: Path, **settings: str) -> dict[str, bytes]:
    """Return the images of a bulk run by key; its stages are called in this process."""
    fields = {"model": str(model), "input": str(source), "out": str(out), **settings}
    run = prepare(from_mapping(StylizeConfig, fields))
    storage, config, twins = Storage(), run.config, TwinFinder()
    read = Reader(storage, config.decode)
    painter = Painter(storage, run.layout, run.identity, config)
    write = Writer(storage, run.layout, run.identity, config.encode)
    for found in find_sources(storage, str(source)):
        write(painter(read(plan_row(twins.add(found)))))
    return files(out / "images" / "waves")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"strength": "0.4", "preserve_color": "true", "format": "png", "keep_metadata": "all"},
        {"max_size_px": "25", "texture_scale": "1.5", "animation": "all", "quality": "40"},
        {"strength": "0", "format": "webp"},
    ],
)
def test_results_have_the_bytes_of_a_bulk_run(
    paint: Paint, photos: Path, style_file: Path, tmp_path: Path, settings: dict[str, str]
):
    flags = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", value)]
    assert paint(photos, "--out", tmp_path / "out", *flags) == FAILED  # one is damaged
    painted = files(tmp_path / "out")
    assert len(painted) == 4
    assert painted == bulk(photos, tmp_path / "bulk", style_file, **settings)


def test_a_photo_goes_into_the_current_folder_and_nothing_is_replaced(
    paint: Paint, photos: Path, capsys: pytest.CaptureFixture[str]
):
    assert paint(photos / "a.jpg") == DONE
    (result,) = Path.cwd().iterdir()
    assert result.name == "a-waves.jpg"
    assert "60 x 40 px" in capsys.readouterr().out
    assert paint(photos / "a.jpg") == DONE, "the same bytes are no conflict"
    result.write_bytes(b"mine")
    assert paint(photos / "a.jpg") == FAILED
    (line,) = capsys.readouterr().err.splitlines()
    assert "a-waves.jpg exists already" in line and "--replace" in line
    assert result.read_bytes() == b"mine"
    assert paint("--replace", photos / "a.jpg") == DONE, "a switch does not take the photo for its value"
    assert result.read_bytes() != b"mine"


def test_a_named_file_is_replaced_and_its_suffix_chooses_the_format(paint: Paint, photos: Path):
    out = Path("result.PNG")
    out.write_bytes(b"old")
    assert paint(photos / "a.jpg", "--out", out) == DONE
    assert Image.open(out).format == "PNG" and files(Path.cwd()).keys() == {"result.PNG"}
    assert paint(photos / "alpha.tif", "--out", "x.tif") == DONE
    assert Image.open("x.tif").format == "TIFF"


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["a.jpg", "--out", "x.png", "--format", "jpeg"], "out='x.png': is the name of a PNG"),
        (["a.jpg", "--out", "x.doc"], "out='x.doc': has the suffix .doc"),
        (["a.jpg", "alpha.tif", "--out", "x.jpg"], "out='x.jpg': names one file"),
        (["a.jpg", "deep", "--out", "-"], "out='-': takes one picture"),
        (["gone.jpg"], "photo='gone.jpg': does not exist"),
        (["a.jpg", "--out", "http://host/x.jpg"], "out="),
        (["a.jpg", "--sheet", "x.doc"], "sheet='x.doc': is not the name of a picture"),
        (["a.jpg", "--strength", "2"], "strength=2.0"),
        ([], "PHOTO is missing"),
        (["-", "-"], "photo='-': is given twice"),
        (["s3:/bucket/a.jpg"], "photo="),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_painted(
    paint: Paint,
    photos: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    field: str,
):
    monkeypatch.chdir(photos)
    before = files(photos)
    assert paint(*arguments) == WRONG_USE
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"stylemill: {field}")
    assert files(photos) == before


def test_a_photo_that_is_none_fails_alone(paint: Paint, photos: Path, capsys: pytest.CaptureFixture[str]):
    assert paint(photos / "notes.md", photos / "damaged.jpg", photos / "a.jpg", "--out", "out") == FAILED
    captured = capsys.readouterr()
    assert files(Path("out")).keys() == {"a.jpg"}
    assert [line.split(": ")[2] for line in captured.err.splitlines()] == ["not painted"] * 2
    assert paint(photos / "deep", photos / "*.md", "--out", "out") == DONE, "what a folder holds besides is skipped"
    assert "skipped" in capsys.readouterr().err
    assert paint(photos / "*.md") == WRONG_USE


def test_a_photo_is_never_replaced(paint: Paint, photos: Path, capsys: pytest.CaptureFixture[str]):
    before = files(photos)
    assert paint(photos / "a.jpg", "--out", photos / "a.jpg") == FAILED
    assert paint(photos / "a.jpg", "--out", photos, "--replace") == FAILED
    link = photos.parent / "link"
    link.symlink_to(photos)
    assert paint(photos / "a.jpg", "--out", link / "a.jpg") == FAILED
    assert all("would replace the photo" in line for line in capsys.readouterr().err.splitlines())
    assert files(photos) == before


def test_two_photos_of_one_name_do_not_replace_each_other(
    paint: Paint, photos: Path, capsys: pytest.CaptureFixture[str]
):
    (photos / "deep" / "a.jpg").write_bytes(image_bytes(33, 33, 5))
    assert paint(photos / "a.jpg", photos / "deep" / "a.jpg", "--out", "out", "--replace") == FAILED
    assert "has the name" in capsys.readouterr().err
    assert Image.open("out/a.jpg").size == (60, 40)


def test_several_styles_have_a_folder_each_and_a_sheet_shows_them(
    paint: Paint, photos: Path, second_style_file: Path, capsys: pytest.CaptureFixture[str]
):
    more = ("--model", second_style_file, "--out", "out", "--sheet", "sheet.png")
    assert paint(photos / "a.jpg", photos / "deep", photos / "alpha.tif", *more) == DONE
    assert set(files(Path("out"))) == {
        f"{style}/{name}" for style in ("waves", "dunes") for name in ("a.jpg", "b.png", "alpha.tif")
    }
    sheet = np.asarray(Image.open("sheet.png"))
    width_px, height_px = 3 * 320 + 2 * 8, 28 + 3 * 320 + 2 * 8
    assert sheet.shape == (height_px, width_px, 3)
    cells = [sheet[28:348, left : left + 320].astype(int) for left in (0, 328, 656)]
    assert all(np.abs(one - other).mean() > 5 for one, other in itertools.pairwise(cells))
    assert sheet[:28].min() < 128, "there are titles"


def test_an_output_that_cannot_be_written_is_one_line(paint: Paint, photos: Path, capsys: pytest.CaptureFixture[str]):
    Path("taken").write_bytes(b"mine")
    assert paint(photos / "a.jpg", "--out", "taken/") == FAILED
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be written" in line
    assert files(Path.cwd()) == {"taken": b"mine"}


def test_standard_input_and_output(photos: Path, style_file: Path, tmp_path: Path, paint: Paint):
    command = [sys.executable, "-m", "stylemill", "paint", "-", "--out", "-", "--model", str(style_file)]
    answer = subprocess.run(
        command, input=(photos / "a.jpg").read_bytes(), capture_output=True, env=environment(), check=True
    )
    assert paint(photos / "a.jpg", "--out", tmp_path / "a.jpg") == DONE
    assert answer.stdout == (tmp_path / "a.jpg").read_bytes()
    assert answer.stderr.startswith(b"standard input -> -") and answer.stderr.count(b"\n") == 1


def test_a_model_of_another_version_is_refused(
    paint: Paint, photos: Path, style_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    other = tmp_path / "other.safetensors"
    other.write_bytes(style_file.read_bytes().replace(b'"stylemill/1"', b'"stylemill/9"'))
    assert paint(photos / "a.jpg", model=other) == WRONG_USE
    (line,) = capsys.readouterr().err.splitlines()
    assert "stylemill/9" in line


def test_it_needs_no_ray_and_nothing_for_tables(photos: Path, style_file: Path, tmp_path: Path):
    code = (
        "import sys; from stylemill.cli.main import main; code = main(sys.argv[1:]);"
        "heavy = {'ray', 'torchvision', 'pyarrow', 's3fs', 'requests', 'pandas'} & set(sys.modules);"
        "sys.exit(f'loaded {heavy}' if heavy else code)"
    )
    arguments = ["paint", str(photos / "a.jpg"), "--model", str(style_file), "--out", str(tmp_path / "a.jpg")]
    command = [sys.executable, "-c", code, *arguments]
    answer = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (DONE, "")


@pytest.fixture
def two_photos(tmp_path: Path) -> Path:
    """A folder with two photos, and the current folder beside it."""
    folder = tmp_path / "p1"
    folder.mkdir()
    for seed, name in enumerate(("a.jpg", "b.jpg")):
        (folder / name).write_bytes(image_bytes(20, 30, seed))
    return folder


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["p1/a.jpg", "p1/b.jpg", "--out", "o1", "--sheet", "p1/a.jpg"], "is one of the photos"),
        (["p1/a.jpg", "--sheet", "link/a.jpg"], "is one of the photos"),
        (["p1/a.jpg", "--out", "r.png", "--sheet", "r.png"], "is the file of --out too"),
        (["p1", "--out", "o1", "--sheet", "p1/new.png"], "is inside the photos"),
        (["p1/a.jpg", "--sheet", "mine/s.png"], "cannot be written"),
        (["p1/a.jpg", "--sheet", "folder.png"], "is a folder"),
        (["p1/a.jpg", "--sheet", "http://host/s.png"], "cannot be written over http"),
        (["p1/a.jpg", "--sheet", "nowhere://s/s.png"], ""),
    ],
)
def test_a_sheet_that_cannot_be_is_refused_before_anything_is_painted(
    paint: Paint,
    two_photos: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    problem: str,
):
    monkeypatch.chdir(two_photos.parent)
    Path("link").symlink_to("p1")
    Path("mine").write_bytes(b"mine")
    Path("folder.png").mkdir()
    before = files(Path.cwd())
    assert paint(*arguments) == WRONG_USE
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("stylemill: sheet=") and problem in line
    assert files(Path.cwd()) == before and captured.out == ""


def test_no_result_gets_the_name_of_the_sheet_and_an_older_sheet_is_replaced(
    paint: Paint, two_photos: Path, capsys: pytest.CaptureFixture[str]
):
    assert paint(two_photos, "--out", "out", "--sheet", "out/a.jpg", "--replace") == FAILED
    assert "the contact sheet has the name" in capsys.readouterr().err
    assert files(Path("out")).keys() == {"a.jpg", "b.jpg"}
    for _ in range(2):
        assert paint(two_photos, "--out", "out2", "--sheet", "sheet.png") == DONE


def test_a_sheet_that_fails_at_the_end_is_no_wrong_use(
    paint: Paint, two_photos: Path, capsys: pytest.CaptureFixture[str]
):
    # The folder of the results takes the place of the file.
    assert paint(two_photos, "--out", "s.png/", "--sheet", "s.png") == FAILED
    assert "the results are complete" in capsys.readouterr().err
    assert files(Path("s.png")).keys() == {"a.jpg", "b.jpg"}


@pytest.mark.parametrize("folder", ["~root", "~", "img:", "$HOME"])
def test_the_folder_of_a_photo_is_not_taken_for_a_home_or_a_scheme(
    paint: Paint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    photo = tmp_path / "q" / folder / "zz.jpg"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(image_bytes(20, 30))
    (Path.cwd() / folder).mkdir()
    assert paint(tmp_path / "q") == DONE
    assert files(Path.cwd()).keys() == {f"{folder}/zz-waves.jpg"}


def test_a_url_whose_name_is_none_fails_alone(paint: Paint, two_photos: Path, capsys: pytest.CaptureFixture[str]):
    with web_server() as web:
        assert paint(f"{web.url}/a/..", two_photos / "a.jpg", "--out", "out") == FAILED
    assert "'.' or '..' component" in capsys.readouterr().err
    assert files(Path("out")).keys() == {"a.jpg"}


def test_the_same_command_does_not_paint_its_own_results(
    paint: Paint, two_photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    (two_photos / "deep").mkdir()
    (two_photos / "deep" / "c.png").write_bytes(image_bytes(20, 30, 3, "PNG"))
    monkeypatch.chdir(two_photos)
    assert paint(".") == DONE
    assert "earlier" not in capsys.readouterr().err
    once = files(two_photos)
    assert len(once) == 6
    for source in (".", "*.jpg", two_photos):
        assert paint(source) == DONE
    told = capsys.readouterr().err.splitlines()
    assert [line.split(" are ")[0] for line in told] == [f"stylemill: {number} files" for number in (3, 2, 3)]
    assert files(two_photos) == once
    assert paint("a-waves.jpg") == DONE, "what is named is painted"
    assert files(two_photos).keys() - once.keys() == {"a-waves-waves.jpg"}


@pytest.mark.parametrize(
    ("source", "out"),
    [("p1", "p1/painted"), ("p1", "p1"), ("p1", "link/painted"), ("p1/*.jpg", "p1"), (".", "painted/")],
)
def test_a_folder_of_results_among_the_photos_is_refused(
    paint: Paint,
    two_photos: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    out: str,
):
    monkeypatch.chdir(two_photos.parent)
    Path("link").symlink_to("p1")
    before = files(Path.cwd())
    assert paint(source, "--out", out) == WRONG_USE
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"stylemill: out={out!r}: is inside the photos")
    assert files(Path.cwd()) == before


def test_a_glob_that_does_not_reach_the_folder_of_results_is_fine(
    paint: Paint, two_photos: Path, capsys: pytest.CaptureFixture[str]
):
    for _ in range(2):
        assert paint(two_photos / "*.jpg", "--out", two_photos / "painted") == DONE
    assert files(two_photos).keys() == {"a.jpg", "b.jpg", "painted/a.jpg", "painted/b.jpg"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_slow_fetch(two_photos: Path, style_file: Path, tmp_path: Path, number: int, code: int):
    # The fetch gives up after 120 s: a process that waits for it does not end in time.
    settings = ("--model", style_file, "--storage.timeout-s", "600")
    with web_server() as web:
        command = ("paint", two_photos / "a.jpg", f"{web.url}/drip", *settings)
        job = start_stylemill(*command, cwd=tmp_path, stderr=subprocess.PIPE)
        try:
            assert job.stdout is not None
            assert "a-waves.jpg" in job.stdout.readline(), "then all modules are loaded"
            wait_for("the request", job, lambda: web.requests["/drip"])
            job.send_signal(number)
            out, err = job.communicate(timeout=FETCH_PATIENCE_S)
        finally:
            kill_group(job)
    assert (job.returncode, out, err) == (code, "", "stylemill: interrupted\n")
    assert files(tmp_path).keys() == {"a-waves.jpg", "p1/a.jpg", "p1/b.jpg"}


@pytest.mark.parametrize(
    ("command", "problem"),
    [("- --out r.jpg <&-", "photo='-': means standard input"), ("a.jpg --out - >&-", "out='-': means standard output")],
)
def test_a_closed_descriptor_is_one_line(photos: Path, style_file: Path, command: str, problem: str):
    words = shlex.join([sys.executable, "-m", "stylemill", "paint", "--model", str(style_file)])
    answer = subprocess.run(
        ["sh", "-c", f"{words} {command}"], cwd=photos, env=environment(), capture_output=True, text=True, check=False
    )
    (line,) = answer.stderr.splitlines()
    assert answer.returncode == WRONG_USE and line.startswith(f"stylemill: {problem}")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
def test_a_photo_is_painted_without_standard_streams(photos: Path, style_file: Path, closed: str):
    words = shlex.join([sys.executable, "-m", "stylemill", "paint", "a.jpg", "--model", str(style_file)])
    answer = subprocess.run(["sh", "-c", f"{words} {closed}"], cwd=photos, env=environment(), check=False)
    assert answer.returncode == DONE
    assert Image.open(photos / "a-waves.jpg").size == (60, 40)
