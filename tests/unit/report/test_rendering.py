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
    [(0, "0 bytes"), (1023, "1,023 bytes"), (1024, "1.0 KiB"), (5 * 2**30, "5.0 GiB"), (2**50, "1,024 TiB")],
)
def test_size(num_bytes, text):
    assert rendering.size(num_bytes) == text


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
