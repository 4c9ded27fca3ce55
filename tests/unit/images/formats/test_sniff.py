from __future__ import annotations

import pytest

from stylemill.images.formats.sniff import READABLE, SNIFF_BYTES, is_lossless, sniff
from tests.unit.images.drawn import every_file, picture, save

NAMES = {"MPO": "jpeg"}


@pytest.mark.parametrize("name", sorted(every_file()))
def test_every_format_is_recognised_by_its_first_bytes(name: str) -> None:
    image_format = name.split("-", maxsplit=1)[0]
    found = sniff(every_file()[name][:SNIFF_BYTES])
    assert found == NAMES.get(image_format, image_format.lower())
    assert found in READABLE


@pytest.mark.parametrize(
    ("image_format", "options", "lossless"),
    [
        ("JPEG", {}, False),
        ("PNG", {}, True),
        ("WEBP", {}, False),
        ("WEBP", {"lossless": True}, True),
        ("WEBP", {"lossless": True, "exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"}, True),
        ("WEBP", {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"}, False),
        ("JPEG2000", {}, True),
        ("JPEG2000", {"irreversible": True}, False),
        ("AVIF", {}, False),
    ],
)
def test_lossless_and_lossy_files_are_distinguished(
    image_format: str, options: dict[str, object], lossless: bool
) -> None:
    assert is_lossless(save(picture("RGB"), image_format, **options), image_format.lower()) == lossless
