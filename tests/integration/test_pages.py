"""Every kind of page in a real browser: wide and narrow, light and dark, with and without scripts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.chromium import CHROMIUM, Chromium
from tests.integration.pages import KEYS, STYLES, all_pages

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

PAGES = ("training", "bulk", "demo", "evaluation", "optimization", "comparison", "retraining", "vote")
LAYOUT = Path(__file__).with_name("layout.js").read_text("utf-8")
GROUNDS = {"light": "rgb(250, 246, 239)", "dark": "rgb(19, 21, 26)"}


class Viewer:
    """Shows pages in one browser."""

    def __init__(self, folder: Path) -> None:
        self.browser, self._folder = Chromium(folder / "profile"), folder
        pages = all_pages()
        assert set(pages) == set(PAGES)
        for name, page in pages.items():
            (folder / f"{name}.html").write_text(page, "utf-8")

    def show(self, name: str, *, width_px: int = 1280, scheme: str = "light", scripts: bool = True) -> None:
        call = self.browser.call
        call("Emulation.setScriptExecutionDisabled", value=not scripts)
        call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        call(
            "Emulation.setDeviceMetricsOverride",
            width=width_px, height=900, deviceScaleFactor=1, mobile=width_px < 600,
        )  # fmt: skip
        call("Page.navigate", url=(self._folder / f"{name}.html").as_uri())
        self.browser.wait_for(f"document.readyState == 'complete' && location.pathname.endsWith('/{name}.html')")

    def value(self, expression: str) -> Any:
        return self.browser.value(expression)


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    shown = Viewer(tmp_path_factory.mktemp("pages"))
    yield shown
    shown.browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width_px", [1280, 390])
@pytest.mark.parametrize("name", PAGES)
def test_nothing_reaches_outside_no_word_is_broken_and_all_can_be_read(
    viewer: Viewer, name: str, width_px: int, scheme: str
):
    viewer.show(name, width_px=width_px, scheme=scheme)
    assert viewer.value("innerWidth") == width_px
    assert viewer.value("getComputedStyle(document.body).backgroundColor") == GROUNDS[scheme]
    viewer.value("for (const one of document.querySelectorAll('details')) one.open = true")
    assert viewer.value(LAYOUT) == []


@pytest.mark.parametrize("name", ["bulk", "demo", "evaluation", "comparison", "retraining"])
def test_on_a_telephone_each_row_is_a_card_with_the_names_of_its_columns(viewer: Viewer, name: str):
    viewer.show(name, width_px=390)
    assert viewer.value("[...document.querySelectorAll('thead')].every((head) => !head.checkVisibility())")
    bare = """[...document.querySelectorAll('tbody td')].filter((cell) => cell.checkVisibility())
        .filter((cell) => getComputedStyle(cell, '::before').content.length < 3).map((cell) => cell.textContent)"""
    assert viewer.value(bare) == []
    viewer.show(name, width_px=1280)
    assert viewer.value("[...document.querySelectorAll('thead')].every((head) => head.checkVisibility())")
    assert viewer.value("getComputedStyle(document.querySelector('tbody td'), '::before').content") == "none"


def choose(viewer: Viewer, form: int, select: str, value: str) -> None:
    viewer.value(
        f"""{{ const select = document.querySelectorAll('form.filters')[{form}].elements['{select}'];
        select.value = '{value}'; select.dispatchEvent(new Event('input', {{bubbles: true}})); }}"""
    )


SHOWN_ROWS = """[...document.querySelectorAll('tr[data-status]')].filter((row) => row.checkVisibility())
    .map((row) => row.dataset.status + ' ' + row.dataset.style)"""


@pytest.mark.parametrize("width_px", [1280, 390])
def test_filters_leave_what_was_chosen(viewer: Viewer, width_px: int):
    viewer.show("bulk", width_px=width_px)
    assert viewer.value(f"{SHOWN_ROWS}.length") == 10
    choose(viewer, 1, "status", "failed")
    assert viewer.value(SHOWN_ROWS) == [f"failed {STYLES[number % 3]}" for number in range(50, 56)]
    choose(viewer, 1, "style", "woodcut")
    assert viewer.value(SHOWN_ROWS) == ["failed woodcut"] * 2
    assert viewer.value("document.querySelectorAll('output')[1].textContent") == "2 of these 10"
    choose(viewer, 1, "status", "all")
    choose(viewer, 1, "style", "all")
    assert viewer.value(f"{SHOWN_ROWS}.length") == 10

    choose(viewer, 0, "folder", KEYS[1].rpartition("/")[0])
    pictures = "[...document.querySelectorAll('.pair')].filter((one) => one.checkVisibility()).length"
    assert viewer.value(pictures) == 2
    assert viewer.value(f"{SHOWN_ROWS}.length") == 10, "each list has its own filters"


def test_without_scripts_everything_is_shown_and_no_filter(viewer: Viewer):
    viewer.show("bulk", scripts=False)
    assert viewer.value(f"{SHOWN_ROWS}.length") == 10
    assert not viewer.value("document.querySelector('form.filters').checkVisibility()")


def test_the_keyboard_can_be_followed(viewer: Viewer):
    viewer.show("bulk", width_px=390)
    unseen = """[...document.querySelectorAll('a, select, summary, input')].filter((one) => one.checkVisibility())
        .filter((one) => { one.focus(); const shown = one.closest('.compare') ?? one;
            return document.activeElement !== one || getComputedStyle(shown).outlineStyle != 'solid'; })
        .map((one) => one.outerHTML)"""
    viewer.browser.press("Tab")  # from now on the browser shows the focus
    assert viewer.value("document.querySelectorAll('a, select, summary, input').length") > 20
    assert viewer.value(unseen) == []
