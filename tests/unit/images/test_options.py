from __future__ import annotations

import pytest

from stylemill.errors import ConfigError
from stylemill.images.options import SUFFIXES, DecodeOptions, EncodeOptions, output_key


@pytest.mark.parametrize(
    ("key", "output_format", "expected"),
    [
        ("a/b.jpg", "jpeg", "a/b.jpg"),
        ("a/B.JPG", "jpeg", "a/B.JPG"),
        ("a/b.jpe", "jpeg", "a/b.jpe"),
        ("a/b.jfif", "jpeg", "a/b.jfif"),
        ("a.tif", "png", "a.tif.png"),
        ("a.tif", "tiff", "a.tif"),
        ("noname", "webp", "noname.webp"),
        (".png", "png", ".png.png"),
        ("x.png/y", "png", "x.png/y.png"),
        ("a.jpg", "png", "a.jpg.png"),
        ("a.heic", "jpeg", "a.heic.jpg"),
        ("ü ñ\n.png", "png", "ü ñ\n.png"),
    ],
)
def test_the_suffix_is_kept_if_it_names_the_format(key: str, output_format: str, expected: str) -> None:
    assert output_key(key, output_format) == expected
    assert output_key(expected, output_format) == expected


def test_every_written_format_has_a_suffix() -> None:
    from stylemill.images.containers import PILLOW_NAMES

    assert set(PILLOW_NAMES) <= set(SUFFIXES)


@pytest.mark.parametrize(
    ("field", "value"),
    [("quality", 0), ("quality", 101), ("format", "gif"), ("keep_metadata", "some")],
)
def test_invalid_encode_options_are_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        EncodeOptions(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_pixels", 0),
        ("max_source_bytes", 0),
        ("animation", "some"),
        ("decode_timeout_s", 0),
        ("decode_timeout_s", float("nan")),
        ("decode_timeout_s", float("inf")),
        ("decoder_memory_bytes", 1),
    ],
)
def test_invalid_decode_options_are_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        DecodeOptions(**{field: value})  # type: ignore[arg-type]
