"""The page in a real browser: a name, keys, a picture from before, an end."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylemill.experiments.ballot import BallotBox, make_questions, read_votes
from stylemill.experiments.vote_server import VoteServer
from stylemill.storage import Storage
from tests.integration.chromium import CHROMIUM, Chromium
from tests.unit.experiments.tables import MODELS, measured_pictures

LAYOUT = Path(__file__).with_name("layout.js").read_text("utf-8")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_person_votes_with_the_keyboard(tmp_path: Path):
    box = BallotBox(Storage(), str(tmp_path / "out"), make_questions(measured_pictures(tmp_path)))
    server = VoteServer(Storage(), box, host="127.0.0.1", port=0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    browser = Chromium(tmp_path / "profile")
    try:
        browser.call("Page.navigate", url=server.url)
        browser.wait_for("document.readyState == 'complete' && !!document.querySelector('input[name=voter]')")
        browser.value("document.querySelector('input[name=voter]').focus()")
        browser.call("Input.insertText", text="ann")
        browser.value("document.querySelector('#who button').click()")
        loaded = "[...document.querySelectorAll('.ballot img')].every((one) => one.complete && one.naturalWidth == 80)"
        browser.wait_for(f"!document.getElementById('booth').hidden && {loaded}")
        shown = np.asarray(Image.open(io.BytesIO(browser.screenshot())).convert("RGB"))
        assert shown.std() > 20  # two pictures, not an empty page
        text = browser.value("document.documentElement.outerHTML")
        assert not any(model in text for model in MODELS)

        for width_px, stacked in ((390, True), (1280, False)):
            screen = {"width": width_px, "height": 900, "deviceScaleFactor": 1, "mobile": stacked}
            browser.call("Emulation.setDeviceMetricsOverride", **screen)
            assert browser.value(LAYOUT) == []
            left, right = (
                browser.value(f"document.getElementById('{side}').getBoundingClientRect().toJSON()")
                for side in ("left", "right")
            )
            assert (right["top"] >= left["bottom"]) is stacked
            assert right["bottom"] <= 900, "both pictures are on the screen"

        browser.press("b")
        browser.wait_for(f"document.querySelector('#left img').src.includes('/before') && {loaded}")
        browser.press("b")
        browser.wait_for(f"document.querySelector('#left img').src.includes('/left') && {loaded}")

        wanted = {}
        for number, (key, choice) in enumerate(
            [("ArrowLeft", "left"), ("ArrowRight", "right"), ("ArrowDown", "tie"), ("ArrowLeft", "left")], 1
        ):
            question, _ = box.next_question("ann")
            assert question is not None and question.identity in browser.value(
                "document.querySelector('#left img').src"
            )
            left, right = box.sides("ann", question)
            wanted[question.key] = {"left": left, "right": right, "tie": None}[choice]
            browser.press(key)
            browser.wait_for(f"document.getElementById('progress').textContent == '{number} of 4 answered'")
        browser.wait_for("!document.getElementById('done').hidden")
    finally:
        browser.close()
        server.shutdown()
        server.server_close()
        thread.join()
    votes = read_votes(Storage(), [str(tmp_path / "out")])
    assert {vote["key"]: vote["preferred"] for vote in votes} == wanted
    assert all(vote["seconds"] > 0 for vote in votes)
