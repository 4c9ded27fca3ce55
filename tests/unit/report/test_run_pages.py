from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest

from stylemill.report.pictures import Pair, embed, palette
from stylemill.report.run_pages import (
    BulkReport,
    DemoReport,
    Details,
    StyleCard,
    TrainingReport,
    render_bulk_report,
    render_demo_report,
    render_training_report,
)
from stylemill.report.summary import summarize

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>\u202egpj.exe'
_VOID = {"meta", "link", "img", "input", "br", "wbr", "path"}


class _Reader(HTMLParser):
    """Collects tags and attributes, and complains about tags that do not nest."""

    def __init__(self, page):
        super().__init__()
        self.tags = []
        self.text = []
        self._open = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def words(self):
        return " ".join(" ".join(self.text).split())


@pytest.fixture
def training(metrics, encoded):
    image = encoded((64, 64))
    return TrainingReport(
        style=StyleCard(name="waves", picture=embed(image, alt="the style"), colours=palette(image)),
        metrics=metrics,
        samples=[("step 60", embed(encoded(), alt="samples"))],
        events=["resumed at step 20"],
        details=Details(facts={"machine": "2 CPU cores"}, config={"style_image": "s3://me:pw@host/a.png", "steps": 60}),
    )


@pytest.fixture
def bulk(manifest_rows, encoded, training):
    failed = {
        "status": "failed",
        "error_type": "Truncated",
        "error": "ends early",
        "key": "x/cut.jpg",
    }
    skipped = {"status": "skipped", "error_type": "NotAnImage", "error": "text", "key": "notes.txt"}
    pair = Pair(
        name="0000.jpg",
        before=embed(encoded(), alt="before"),
        after=embed(encoded(), alt="after"),
        note="200 × 100",
        style="waves",
        locations={"Photograph": "/in/0000.jpg", "Painting": "s3://out/0000.jpg"},
    )
    return BulkReport(
        run_id="run-1",
        summary=summarize(manifest_rows({}, {}, failed, skipped, {})),
        styles=[training.style],
        pairs=[pair],
        details=Details(facts={"fingerprint": "cd" * 32}, config={"quality": 90}),
    )


@pytest.fixture
def pages(training, bulk):
    demo = DemoReport(
        training=training, bulk=bulk, verification="3 outputs are as the manifest says.", verified=True,
        stages_s=[("training took", 123.4)], facts={"whole demo": "3 min 02 s"},
    )  # fmt: skip
    return [render_training_report(training), render_bulk_report(bulk), render_demo_report(demo)]


def test_pages_nest_and_load_nothing(pages):
    for page in pages:
        reader = _Reader(page)
        for tag, attributes in reader.tags:
            for name in ("src", "href", "srcset", "poster", "action"):
                if attributes.get(name) and tag != "a":  # a link loads nothing
                    assert attributes[name].startswith("data:"), (tag, attributes[name][:60])
        assert "http:" not in page
        assert "https:" not in page
        assert "@import" not in page
        assert "url(" not in page


def test_every_picture_has_words_and_a_size(pages):
    for page in pages:
        images = _Reader(page).named("img")
        assert images
        for image in images:
            assert image["alt"]
            assert int(image["width"]) > 0
            assert int(image["height"]) > 0


def test_every_slider_and_chart_has_a_label(pages):
    reader = _Reader(pages[2])
    assert len(reader.named("input")) == 1
    assert "0000.jpg" in reader.named("input")[0]["aria-label"]
    charts = [svg for svg in reader.named("svg") if svg.get("role") == "img"]
    assert charts
    assert all(svg["aria-label"] for svg in charts)


def test_the_figures_stand_on_the_pages(pages):
    training, bulk, demo = (_Reader(page).words() for page in pages)
    assert "From 4.50 at the first step" in training
    assert "resumed at step 20" in training
    assert "1 update was left out" in training
    assert "peak memory of a worker 1.6 GB" in training
    for words in (bulk, demo):
        assert "5 rows, one for every planned source" in words
        assert re.search(r"3 ok\s*, 1 failed\s*, 1 skipped", words)
        assert "x/cut.jpg /in/0002.jpg failed Truncated ends early" in words
        assert "notes.txt /in/0003.jpg skipped NotAnImage text" in words
        assert "cd" * 32 in words.replace(" ", "")
    assert "3 outputs are as the manifest says." in demo
    assert "2 min 03 s" in demo


def test_the_share_of_time_waiting_is_said_where_the_batch_size_is_known(training):
    # Every step took 4 / 6.5 s and waited 0.04 s: 6.5 %.
    config = {**training.details.config, "batch_size": 4}
    known = replace(training, details=replace(training.details, config=config))
    assert "waiting for images 6.5 % of the time" in _Reader(render_training_report(known)).words()
    assert "waiting for images" not in _Reader(render_training_report(training)).words()


def test_loss_terms_gradient_and_waits_have_their_lines(training):
    words = _Reader(render_training_report(training)).words()
    for caption in ("content style grid lattice", "Gradient norm by step, before clipping", "waited for its images"):
        assert caption in words


def test_the_teacher_has_a_line_where_there_is_one(training):
    assert "lattice teacher" not in _Reader(render_training_report(training)).words()
    position = training.metrics.column_names.index("teacher_loss")
    taught = training.metrics.set_column(position, "teacher_loss", pa.array(np.linspace(1.0, 0.1, 60)))
    assert "lattice teacher" in _Reader(render_training_report(replace(training, metrics=taught))).words()


def test_credentials_do_not_reach_a_page(pages):
    assert all("me:pw" not in page for page in pages)
    assert "s3://***@host/a.png" in pages[0].replace("<wbr>", "")


def test_hostile_names_stay_text(training, bulk, manifest_rows, encoded):
    trouble = {"status": "failed", "error_type": HOSTILE, "error": HOSTILE, "key": HOSTILE}
    card = StyleCard(name=HOSTILE, picture=embed(encoded((8, 8)), alt=HOSTILE))
    picture = embed(encoded((8, 8)), alt=HOSTILE)
    details = Details(facts={HOSTILE: HOSTILE}, config={HOSTILE: [HOSTILE], "deep": {"deeper": HOSTILE}})
    nasty_training = TrainingReport(
        style=card, metrics=training.metrics, samples=[(HOSTILE, picture)], events=[HOSTILE], details=details
    )
    nasty_bulk = BulkReport(
        run_id=HOSTILE,
        summary=summarize(manifest_rows({"key": HOSTILE, "style": HOSTILE}, {"style": "b"}, trouble)),
        styles=[card],
        pairs=[Pair(name=HOSTILE, before=picture, after=picture, note=HOSTILE)],
        details=details,
    )
    demo = DemoReport(
        training=nasty_training, bulk=nasty_bulk, verification=HOSTILE, verified=False,
        stages_s=[(HOSTILE, 1.0)], facts={HOSTILE: HOSTILE},
    )  # fmt: skip
    for page in (
        render_training_report(nasty_training),
        render_bulk_report(nasty_bulk),
        render_demo_report(demo),
    ):
        reader = _Reader(page)
        assert len(reader.named("script")) == 1
        assert "alert(1)" not in page.split("<script>")[-1]
        assert all(image["src"].startswith("data:image/webp;base64,") for image in reader.named("img"))
        assert not any(name.startswith("on") for _, attributes in reader.tags for name in attributes)
        assert "\u202e" not in page
        assert "\\u202egpj.exe" in page.replace("<wbr>", "")


def test_a_run_with_nothing_in_it_still_has_a_page(manifest_rows, metrics):
    card = StyleCard(name="bare")
    page = render_bulk_report(BulkReport(run_id="r", summary=summarize(manifest_rows().slice(0, 0))))
    assert "Nothing: every source was repainted." in page
    _Reader(page)
    _Reader(render_training_report(TrainingReport(style=card, metrics=metrics.slice(0, 0))))
    _Reader(render_training_report(TrainingReport(style=card, metrics=pa.table({"step": [1], "loss": [float("nan")]}))))


def test_more_troubles_than_the_page_lists_are_counted(manifest_rows):
    rows = [{"status": "failed", "error_type": "Corrupt", "error": "bad", "key": f"{n}"} for n in range(230)]
    words = _Reader(render_bulk_report(BulkReport(run_id="r", summary=summarize(manifest_rows(*rows))))).words()
    assert "230 Corrupt" in words
    assert "200 of 230 shown. The manifest has all." in words


def test_the_last_loss_is_one_number(training):
    words = _Reader(render_training_report(training)).words()
    (figure,) = re.findall(r"last loss ([\d.]+)", words)
    assert f"at the first step to {figure}, the mean of the last twentieth" in words


def test_a_list_that_is_cut_says_so(training, bulk):
    cut = replace(training, num_samples=7)
    assert "1 of 7 shown." in _Reader(render_training_report(cut)).words()
    assert "shown" not in _Reader(render_training_report(replace(training, num_samples=1))).words()
    assert "1 of 3 shown." in _Reader(render_bulk_report(bulk)).words()


def test_filters_offer_the_values_that_differ(bulk, manifest_rows):
    reader = _Reader(render_bulk_report(bulk))
    (form,) = reader.named("form")
    assert "hidden" in form, "only the script shows what needs the script"
    assert [select["name"] for select in reader.named("select")] == ["status", "folder"]
    assert [option.get("value") for option in reader.named("option")] == [None, "failed", "skipped", None, "", "x"]
    rows = [tag for tag in reader.named("tr") if "data-status" in tag]
    assert [(row["data-status"], row["data-folder"]) for row in rows] == [("failed", "x"), ("skipped", "")]

    failed = {"status": "failed", "error_type": "Truncated", "error": "ends early"}
    two_styles = summarize(manifest_rows(failed | {"style": "a"}, failed | {"style": "b"}))
    reader = _Reader(render_bulk_report(BulkReport(run_id="r", summary=two_styles)))
    assert [select["name"] for select in reader.named("select")] == ["style"]
    assert "waves" not in reader.words()
    assert [row["data-style"] for row in reader.named("tr") if "data-style" in row] == ["a", "b"]


def test_objects_have_their_locations(bulk):
    reader = _Reader(render_bulk_report(bulk))
    links = [link["href"] for link in reader.named("a")]
    assert links == ["file:///in/0000.jpg", "file:///in/0002.jpg", "file:///in/0003.jpg"]
    assert "s3://out/0000.jpg" in reader.words().replace(" ", "")


def test_every_cell_of_a_card_has_its_column(pages):
    """On a narrow screen the head of a table is not shown."""
    for page in pages:
        reader = _Reader(page)
        heads = {text.strip() for text in reader.text}
        for cell in reader.named("td"):
            if not {"wide"} & set(cell.get("class", "").split()):
                assert cell["data-label"] in heads, cell
