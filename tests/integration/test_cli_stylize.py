"""The command line on a real cluster: exit codes, what is said, and where."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.drawn import image_bytes
from tests.integration.conftest import fill, state_of
from tests.web import dead_url, web_server

Stylemill = Callable[..., Any]


def stylize(style: Path, source: Path, out: Path, *more: object) -> tuple[object, ...]:
    return ("stylize", "--model", style, "--input", source, "--out", out, *more)


def test_a_run_from_its_start_to_its_audit(stylemill: Stylemill, style_file: Path, tmp_path: Path):
    library = fill(tmp_path / "in", {f"{number:02d}.jpg": image_bytes(24, 32, number) for number in range(30)})
    fill(library, {"broken.jpg": image_bytes(40, 40)[:200], "notes.txt": b"words " * 30})
    answer = stylemill(*stylize(style_file, library, tmp_path / "out"))  # with a cluster of its own
    assert answer.returncode == 0, answer.stderr
    assert "30 ok, 1 failed, 1 skipped" in answer.stdout
    assert "images/s" in answer.stdout and "1 x Truncated" in answer.stdout and "1 x Text" in answer.stdout
    assert f"{tmp_path}/out/images/waves" in answer.stdout and f"{tmp_path}/out/manifests/" in answer.stdout
    assert all("images/s" in line for line in answer.stderr.splitlines()), answer.stderr
    before = state_of(tmp_path / "out")
    again = stylemill(*stylize(style_file, library, tmp_path / "out"))
    assert (again.returncode, again.stderr) == (0, "") and "already committed" in again.stdout
    assert state_of(tmp_path / "out") == before

    summary = stylemill("manifest", "summary", tmp_path / "out")
    assert summary.returncode == 0 and not summary.stderr
    assert "32 sources, 32 rows in 1 part: 30 ok, 1 failed, 1 skipped" in summary.stdout
    assert "1 x Truncated" in summary.stdout and "rows/s" in summary.stdout
    assert sum(path.stat().st_size for path in library.iterdir()) / 1e6 == _figure(summary.stdout, "MB read")

    verify = stylemill("manifest", "verify", "--uri", tmp_path / "out")
    assert verify.returncode == 0 and "is sound" in verify.stdout, verify.stderr
    (tmp_path / "out" / "images" / "waves" / "07.jpg").unlink()
    verify = stylemill("manifest", "verify", tmp_path / "out")
    assert verify.returncode == 1
    assert "ObjectMissing" in verify.stdout and "'07.jpg'" in verify.stdout


def _figure(text: str, unit: str) -> Any:
    from pytest import approx

    match = re.search(rf"([0-9.,]+) {unit}", text)
    assert match is not None
    return approx(float(match[1].replace(",", "")), abs=0.06)


def test_too_many_failures_are_exit_code_3(stylemill: Stylemill, local_ray: str, style_file: Path, tmp_path: Path):
    good = {"a.jpg": image_bytes(20, 20), "b.jpg": image_bytes(20, 21)}
    library = fill(tmp_path / "in", {**good, "c.jpg": image_bytes(40, 40)[:200], "d.txt": b"words " * 30})
    cluster = {"RAY_ADDRESS": local_ray}
    answer = stylemill(*stylize(style_file, library, tmp_path / "out"), **cluster)
    assert answer.returncode == 3, answer.stderr
    assert "2 ok, 1 failed, 1 skipped" in answer.stdout
    enough = stylemill(*stylize(style_file, library, tmp_path / "enough", "--max-failed-fraction", "0.34"), **cluster)
    assert enough.returncode == 0, enough.stderr
    again = stylemill(*stylize(style_file, library, tmp_path / "out"), **cluster)
    assert again.returncode == 0 and "already committed" in again.stdout


def test_an_input_without_images_is_exit_code_1_and_a_list_paints_what_it_names(
    stylemill: Stylemill, local_ray: str, style_file: Path, tmp_path: Path
):
    library = fill(tmp_path / "in", {"a.jpg": image_bytes(20, 20), "b.jpg": image_bytes(20, 21)})
    (tmp_path / "list.json").write_text(f'[{{"uri": "{library}/a.jpg"}}]')
    (tmp_path / "list.csv").write_text(f"uri,key\n{library}/a.jpg,one.jpg\n{library}/gone.jpg,two.jpg\n")
    cluster = {"RAY_ADDRESS": local_ray}
    for _ in range(2):  # a scheduler that tries again learns nothing else
        nothing = stylemill(*stylize(style_file, tmp_path / "list.json", tmp_path / "out"), **cluster)
        assert nothing.returncode == 1, nothing.stdout
        last = nothing.stderr.splitlines()[-1]
        assert "nothing was painted" in last and "list.json" in last and ".csv" in last
    listed = stylemill(*stylize(style_file, tmp_path / "list.csv", tmp_path / "out2"), **cluster)
    assert listed.returncode == 3 and "1 ok, 1 failed, 0 skipped" in listed.stdout, listed.stderr
    assert "1 x SourceVanished" in listed.stdout
    assert [path.name for path in (tmp_path / "out2" / "images" / "waves").iterdir()] == ["one.jpg"]


def test_a_list_of_urls_ends_with_rows_for_dead_hosts_and_stops_if_nothing_is_answered(
    stylemill: Stylemill, local_ray: str, style_file: Path, tmp_path: Path
):
    cluster, dead = {"RAY_ADDRESS": local_ray}, dead_url()
    with web_server() as web:
        uris = [f"{web.url}/{number}.jpg" for number in range(6)]
        bad = [f"{web.url}{path}" for path in ("/status/404", "/status/410", "/status/403", "/loop", "/reset")]
        (tmp_path / "list.txt").write_text("\n".join([*uris, *bad, *(f"{dead}/{number}.jpg" for number in range(20))]))
        answer = stylemill(*stylize(style_file, tmp_path / "list.txt", tmp_path / "out"), **cluster)
        assert answer.returncode == 3 and "6 ok, 25 failed, 0 skipped" in answer.stdout, answer.stderr
        assert sorted(re.findall(r"(\d+) x (\w+)", answer.stdout)) == [
            ("1", "AccessDenied"),
            ("1", "RedirectLoop"),
            ("2", "SourceVanished"),
            ("21", "SourceUnreachable"),
        ]

        (tmp_path / "good.txt").write_text("\n".join(uris))
        web.is_down = True
        command = stylize(style_file, tmp_path / "good.txt", tmp_path / "out2", "--storage.retry-deadline-s", 3)
        stopped = stylemill(*command, **cluster)
        assert stopped.returncode == 1 and "run the same command again to resume" in stopped.stderr, stopped.stdout
        web.is_down = False
        resumed = stylemill(*command, **cluster)
        assert resumed.returncode == 0 and "6 ok, 0 failed, 0 skipped" in resumed.stdout, resumed.stderr
