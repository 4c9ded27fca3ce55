from __future__ import annotations

import struct
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from stylemill.errors import ImageError
from stylemill.images.decode import decode
from stylemill.images.formats import iso_boxes
from stylemill.images.formats.iso_boxes import CleanAperture, CodePoints, boxes, coded_ranges, read_properties
from stylemill.images.options import DecodeOptions
from tests.unit.images.drawn import animation, picture, save


def box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full_box(kind: bytes, version: int, flags: int, *content: bytes) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *content)


def nclx(primaries: int, transfer: int) -> bytes:
    return box(b"colr", b"nclx", struct.pack(">HHHB", primaries, transfer, 0, 128))


def still(
    properties: list[bytes], associations: bytes, *, version: int = 0, flags: int = 0, more: bytes = b""
) -> bytes:
    """An AVIF with these properties, whose primary item has the number 1; the pixels are left out."""
    ipma = full_box(b"ipma", version, flags, associations)
    primary = full_box(b"pitm", 0, 0, struct.pack(">H", 1))
    meta = full_box(b"meta", 0, 0, primary, more, box(b"iprp", box(b"ipco", *properties), ipma))
    return box(b"ftyp", b"avif", bytes(4)) + meta


def test_code_points_belong_to_the_primary_item() -> None:
    properties = [nclx(9, 16), nclx(12, 13)]
    of_item_2_and_1 = struct.pack(">IHBBHBB", 2, 2, 1, 1, 1, 1, 2 | 0x80)
    assert read_properties(still(properties, of_item_2_and_1)).code_points == CodePoints(primaries=12, transfer=13)


def test_wide_numbers_of_items_and_properties_are_read() -> None:
    wide = struct.pack(">IIBHH", 1, 1, 2, 1, 0x8000 | 2)
    data = still([box(b"ispe", bytes(12)), nclx(12, 13)], wide, version=1, flags=1)
    assert read_properties(data).code_points == CodePoints(primaries=12, transfer=13)


def test_a_composed_picture_has_the_colour_of_its_first_tile() -> None:
    tiles = full_box(b"iref", 0, 0, box(b"dimg", struct.pack(">HHHH", 1, 2, 7, 8)))
    of_item_1_and_7 = struct.pack(">IHBBHBB", 2, 1, 1, 1, 7, 1, 2)
    data = still([box(b"ispe", bytes(12)), nclx(12, 13)], of_item_1_and_7, more=tiles)
    assert read_properties(data).code_points == CodePoints(primaries=12, transfer=13)


def test_code_points_stand_beside_a_profile() -> None:
    profile = box(b"colr", b"prof", bytes(200))
    data = still([profile, nclx(12, 13)], struct.pack(">IHBBB", 1, 1, 2, 1, 2))
    assert read_properties(data).code_points == CodePoints(primaries=12, transfer=13)


def test_an_image_sequence_without_a_still_states_its_colour_in_the_track() -> None:
    entry = box(b"av01", bytes(78), nclx(12, 13))
    table = box(b"stbl", full_box(b"stsd", 0, 0, struct.pack(">I", 1), entry))
    data = box(b"ftyp", b"avis", bytes(4)) + box(b"moov", box(b"trak", box(b"mdia", box(b"minf", table))))
    assert read_properties(data).code_points == CodePoints(primaries=12, transfer=13)


def test_the_clean_aperture_and_the_peak_are_read() -> None:
    clap = box(b"clap", struct.pack(">IIIIiIiI", 180, 1, 200, 2, -30, 1, -10, 1))
    light = box(b"clli", struct.pack(">HH", 703, 200))
    properties = read_properties(still([clap, light], struct.pack(">IHBBB", 1, 1, 2, 1, 2)))
    assert properties.peak_cd_m2 == 703
    assert properties.aperture is not None
    assert properties.aperture.box(320, 280) == (40, 80, 220, 180)


@pytest.mark.parametrize(
    ("size", "offset", "expected"),
    [
        ((4, 4), (0, 0), (3, 3, 7, 7)),
        ((5, 5), (Fraction(1, 2), Fraction(-1, 2)), (3, 2, 8, 7)),
        ((10, 10), (1, 0), None),
        ((0, 4), (0, 0), None),
        ((11, 4), (0, 0), None),
        ((1 << 32, 1), (0, 0), None),
    ],
)
def test_an_aperture_outside_the_picture_is_none(
    size: tuple[int, int], offset: tuple[Fraction, Fraction], expected: tuple[int, ...] | None
) -> None:
    width, height = (Fraction(value) for value in size)
    right, down = (Fraction(value) for value in offset)
    aperture = CleanAperture(width_px=width, height_px=height, right_px=right, down_px=down)
    assert aperture.box(10, 10) == expected


def test_what_pillow_writes_is_read() -> None:
    for data in (save(picture("RGB"), "AVIF"), save(picture("RGBA"), "AVIF"), animation("AVIF")):
        properties = read_properties(data)
        assert properties.code_points is not None
        assert properties.code_points.primaries in (1, 2)
        assert not properties.damaged_aperture


def test_damaged_files_give_no_properties_and_no_error() -> None:
    rng = np.random.default_rng(0)
    whole = still(
        [nclx(12, 13), box(b"clap", bytes(32))],
        struct.pack(">IHBBB", 1, 1, 2, 1, 2),
        more=full_box(b"iref", 0, 0, box(b"dimg", struct.pack(">HHH", 1, 1, 7))),
    )
    assert read_properties(whole).damaged_aperture
    for _ in range(500):
        damaged = bytearray(whole)
        for _ in range(4):
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        read_properties(bytes(damaged)[: rng.integers(1, len(damaged) + 1)])
    assert list(boxes(struct.pack(">I4s", 4, b"meta"), 0, 8)) == []
    endless = struct.pack(">I4s", 8, b"free") * 20_000
    assert len(list(boxes(endless, 0, len(endless)))) == 10_000


def test_code_points_of_nothing_are_none() -> None:
    assert read_properties(b"").code_points is None
    assert read_properties(save(Image.new("RGB", (1, 1)), "PNG")).code_points is None


def test_the_size_and_the_codec_are_read_before_the_pixels() -> None:
    data = save(picture("RGB").resize((40, 30)), "AVIF")
    properties = read_properties(data)
    assert (properties.size_px, properties.codec) == ((40, 30), "av01")
    large = data.replace(struct.pack(">4sIII", b"ispe", 0, 40, 30), struct.pack(">4sIII", b"ispe", 0, 30000, 20000))
    with pytest.raises(ImageError) as refused:
        decode(large, DecodeOptions())
    assert refused.value.error_type == "TooManyPixels"


def test_a_codec_that_is_not_read_is_named() -> None:
    data = save(picture("RGB"), "AVIF")
    at = data.index(b"infe")
    other = data[:at] + data[at:].replace(b"av01", b"j2k1", 1)
    with pytest.raises(ImageError) as refused:
        decode(other, DecodeOptions())
    assert refused.value.error_type == "UnsupportedFormat"
    assert "j2k1" in refused.value.message


def located(iloc: bytes, *items: int, content: bytes = b"") -> bytes:
    """An AVIF with this index of places and these items of compressed data."""
    entries = [full_box(b"infe", 2, 0, struct.pack(">HH4sB", item, 0, b"av01", 0)) for item in items]
    index = full_box(b"iinf", 0, 0, struct.pack(">H", len(items)), *entries)
    meta = full_box(b"meta", 0, 0, index, box(b"iloc", iloc), box(b"idat", content) if content else b"")
    return box(b"ftyp", b"avif", bytes(4)) + meta


def places(*extents: tuple[int, int], item: int = 1) -> bytes:
    """The content of an index of one item, with offsets and lengths of 4 bytes."""
    body = b"".join(struct.pack(">II", *extent) for extent in extents)
    return struct.pack(">IBBHHHH", 0, 0x44, 0, 1, item, 0, len(extents)) + body


def test_places_that_overlap_are_returned_once() -> None:
    data = located(places((10, 20), (10, 20), (25, 10), (40, 5), (35, 5), (12, 3), (60, 0)), 1)
    assert coded_ranges(data) == [(10, 35), (35, 40), (40, 45)]
    assert coded_ranges(located(places(*[(8, 50)] * 9000), 1)) == [(8, 58)]


@pytest.mark.parametrize("wide", [False, True])
def test_an_index_of_places_of_no_size_is_left_at_once(wide: bool) -> None:
    # Each item says that it has 65535 extents, which have no bytes in the index.
    item = struct.pack(">IHHH", 1, 0, 0, 65535) if wide else struct.pack(">HHH", 1, 0, 65535)
    head = struct.pack(">IBBI" if wide else ">IBBH", 2 << 24 if wide else 0, 0, 0, 1000)
    reads = Reads(head + item * 1000)
    assert len(list(iso_boxes._extents(reads))) <= 1000  # type: ignore[arg-type]
    assert reads.num_slices < 10_000


class Reads(bytes):
    """Bytes that count how often they are read."""

    num_slices = 0

    def __getitem__(self, key: object) -> object:  # type: ignore[override]
        self.num_slices += 1
        return super().__getitem__(key)  # type: ignore[index]


def test_the_number_of_places_is_bounded() -> None:
    data = located(places(*[(2 * at, 1) for at in range(60_000)]), 1)
    assert len(coded_ranges(data)) == 10_000


def test_a_place_in_the_box_of_small_data_may_not_reach_beyond_the_file() -> None:
    body = struct.pack(">IBBHHHHHII", 1 << 24, 0x44, 0, 1, 1, 1, 0, 1, 0, 100)
    data = located(body, 1, content=bytes(100))
    assert coded_ranges(data) == [(len(data) - 100, len(data))]
    beyond = body[:-4] + struct.pack(">I", 101)
    assert coded_ranges(located(beyond, 1, content=bytes(100))) == []


def test_a_property_that_many_items_share_is_not_copied() -> None:
    large = box(b"colr", b"prof", bytes(4 << 20))
    data = still([large], struct.pack(">IHB", 1, 1, 255) + b"\1" * 255)
    tracemalloc.start()
    try:
        read_properties(data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
