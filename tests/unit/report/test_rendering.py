from __future__ import annotations

import math

import pytest

from stylemill.report import rendering


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (0.00123456, "0.00123"), (1.0, "1.00"), (12.345, "12.3"),
        (123.45, "123"), (12345.6, "12,346"),
        (-3.14159, "-3.14"), (1e-9, "1.00e-09"), (None, "–"), (math.nan, "–"), (math.inf, "–"),
    ],
)  # fmt: skip
def test_number(value, text):
    assert rendering.number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min 00 s"),
        (187, "3 min 07 s"),
        (3599.6, "1 h 00 min"), (7500, "2 h 05 min"), (None, "–"),
    ],
)  # fmt: skip
def test_duration(seconds, text):
    assert rendering.duration(seconds) == text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (4_837_000, "4.8 MB"), (5e9, "5.0 GB"), (2e15, "2,000 TB")],
)
def test_size(num_bytes, text):
    assert rendering.size(num_bytes) == text.replace(" ", "\N{NO-BREAK SPACE}")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a b/猫 é.jpg", "a b/猫 é.jpg"),
        ("photo\u202egpj.exe", "photo\\u202egpj.exe"),
        ("two\nlines\x1b[31m", "two\\u000alines\\u001b[31m"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("lone\udcff", "lone\\udcff"),
    ],
)
def test_every_character_of_a_name_can_be_seen(name, shown):
    assert rendering.visible(name) == shown
    rendering.visible(name).encode("utf-8")


def test_a_long_name_keeps_its_beginning_and_its_suffix():
    shown = rendering.visible("folder/" + "x" * 1000 + ".jpeg", limit=60)
    assert len(shown) <= 60
    assert shown.startswith("folder/x")
    assert shown.endswith("x.jpeg")


def test_credentials_in_a_location_are_removed():
    text = "endpoint: https://key:s3cr3t@store:9000/a and s3://bucket/x@y"
    assert rendering.redacted(text) == "endpoint: https://***@store:9000/a and s3://bucket/x@y"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a short_word", "a short_word"),
        ("s3://bucket/folder/a_b.jpg", "s3://<wbr>bucket/<wbr>folder/<wbr>a_<wbr>b.jpg"),
        ("ab" * 20, "abababababababab<wbr>abababababababab<wbr>abababab"),
        ("unquestionably plain words", "unquestionably plain words"),
        ("<b>&'_and_more_of_it", "&lt;b&gt;&amp;<wbr>&#39;_<wbr>and_<wbr>more_<wbr>of_it"),
        ("two  lines\n  kept", "two  lines\n  kept"),
    ],
)
def test_lines_end_within_names_and_digests_but_not_within_words(text, shown):
    assert rendering.breakable(text) == shown


@pytest.mark.parametrize(
    ("uri", "target"),
    [
        ("/data/a b#1.jpg", "file:///data/a%20b%231.jpg"),
        ("https://host/a%20b.jpg", "https://host/a%20b.jpg"),
        ('http://host/"><script>', "http://host/%22%3E%3Cscript%3E"),
    ],
)
def test_what_a_browser_can_open_is_a_link(uri, target):
    assert str(rendering.location(uri)).startswith(f'<a href="{target.replace("&", "&amp;")}" rel="noreferrer">')


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/a.jpg",
        "javascript:alert(1)",
        "https://me:pw@host/a.jpg",
        "https://host/a.jpg?X-Amz-Signature=secret",
    ],
)
def test_everything_else_is_text_without_secrets(uri):
    shown = str(rendering.location(uri)).replace("<wbr>", "")
    assert "<a" not in shown
    assert not any(secret in shown for secret in ("me:pw", "secret"))
    assert shown.startswith(uri[:5])
