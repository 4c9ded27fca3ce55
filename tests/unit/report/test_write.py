from __future__ import annotations

from stylemill.manifest.layout import RunLayout
from stylemill.report.write import bulk_report, training_report, write_bulk_report, write_training_report
from stylemill.storage import Storage


def test_a_bulk_page_shows_the_images_that_can_be_read(tmp_path, manifest_rows, encoded, caplog):
    for name in ("in-a.png", "out-a.png", "in-b.png"):
        (tmp_path / name).write_bytes(encoded())
    (tmp_path / "out-b.png").write_bytes(b"not a picture")
    rows = manifest_rows(
        *(
            {
                "key": f"{name}.png",
                "source_uri": f"{tmp_path}/in-{name}.png",
                "output_uri": f"{tmp_path}/out-{name}.png",
            }
            for name in "abc"
        )
    )
    storage = Storage()
    report = bulk_report(storage, run_id="run-1", parts=rows, style_images={"waves": encoded((32, 32))})
    assert [pair.name for pair in report.pairs] == ["a.png"]
    assert "leaves out b.png" in caplog.text
    assert "leaves out c.png" in caplog.text
    assert report.styles[0].picture is not None
    layout = RunLayout(out=str(tmp_path / "out"), run_id="run-1")
    uri = write_bulk_report(storage, layout, report)
    assert uri == layout.report_uri
    page = storage.read_bytes(uri).decode("utf-8")
    assert "3 images repainted" in page


def test_a_training_page_shows_the_first_the_middle_and_the_last_samples(tmp_path, metrics, encoded):
    samples = [(f"step {step}", encoded()) for step in (10, 20, 30, 40, 50)]
    report = training_report(style_name="waves", style_image=b"broken", metrics=metrics, samples=samples)
    assert [caption for caption, _ in report.samples] == ["step 10", "step 30", "step 50"]
    assert report.style.picture is None
    storage = Storage()
    uri = write_training_report(storage, str(tmp_path / "style"), report)
    assert (tmp_path / "style" / "report" / "index.html").read_text("utf-8").startswith("<!doctype html>")
    assert uri.endswith("style/report/index.html")
