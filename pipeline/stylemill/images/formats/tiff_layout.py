"""Which TIFF layouts are read, and by whom: Pillow, ``formats.tiff_samples``, or nobody.

A layout is a combination of colour space, depth, kind of samples, additional samples, planar or chunky storage and
compression. Pillow opens some combinations that it does not unpack: planes of 16 bits come out as noise, additional
samples in planes as an error that sounds like damage. Each combination that is passed on to Pillow here is drawn and
compared in the tests; all others are read by ``tiff_samples`` or refused by name.

Source: Adobe, TIFF Revision 6.0; for compressions, the list of libtiff.
"""

from __future__ import annotations

from typing import Any, Final

from stylemill.errors import ImageError

# TIFF tags.
_NEW_SUBFILE_TYPE: Final = 254
_BITS_PER_SAMPLE: Final = 258
_COMPRESSION: Final = 259
_PHOTOMETRIC: Final = 262
_NUM_SAMPLES: Final = 277
_PLANAR: Final = 284
_SUB_IFDS: Final = 330
_EXTRA_SAMPLES: Final = 338
_YCBCR_SUBSAMPLING: Final = 530
_DNG_VERSION: Final = 50706

_RGB: Final = 2
_YCBCR: Final = 6
_ALPHA: Final = ((1,), (2,))  # premultiplied or not
_IN_PLANES: Final = frozenset({2, 5})  # RGB and CMYK
_UNKNOWN_MEANING: Final = 0
_UNCOMPRESSED: Final = 1
_BITS_IN_PLANES: Final = ((8, 8, 8), (8, 8, 8, 8), (16, 16, 16), (16, 16, 16, 16))
_COMPRESSIONS: Final = {
    34661: "JBIG",
    34887: "LERC",
    34712: "JPEG 2000",
    34934: "JPEG XR",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}


def is_read_by_pillow(tags: Any) -> bool:
    """Return whether Pillow unpacks a page that it has opened.

    Args:
        tags: of the page: a mapping of tag numbers to values.

    Raises:
        ImageError: ``UnsupportedFormat``: nobody does.
    """
    if _DNG_VERSION in tags or (_SUB_IFDS in tags and tags.get(_NEW_SUBFILE_TYPE) == 1):
        # Their first page is a small preview.
        raise ImageError("UnsupportedFormat", "it is a camera raw file, which is not supported; develop it first")
    compression, bits = tags.get(_COMPRESSION, _UNCOMPRESSED), tuple(tags.get(_BITS_PER_SAMPLE, (1,)))
    subsampling = tuple(tags.get(_YCBCR_SUBSAMPLING, (2, 2)))
    if tags.get(_PHOTOMETRIC) == _YCBCR and compression == _UNCOMPRESSED and subsampling != (1, 1):
        raise ImageError(
            "UnsupportedFormat",
            "it is an uncompressed TIFF with subsampled colours, which is not supported; convert it",
        )
    if tags.get(_PLANAR, 1) != 2 or tags.get(_NUM_SAMPLES, 1) == 1:
        return True
    is_deep_and_raw = compression == _UNCOMPRESSED and bits[0] != 8
    is_plain = tags.get(_PHOTOMETRIC) in _IN_PLANES and not tags.get(_EXTRA_SAMPLES)
    is_compressed_with_alpha = (
        tags.get(_PHOTOMETRIC) == _RGB and tags.get(_EXTRA_SAMPLES) in _ALPHA and compression != _UNCOMPRESSED
    )
    return (is_plain or is_compressed_with_alpha) and bits in _BITS_IN_PLANES and not is_deep_and_raw


def ignored_samples_note(tags: Any) -> str | None:
    """Return the note that samples of unknown meaning were ignored, or None if there are none."""
    count = sum(meaning == _UNKNOWN_MEANING for meaning in tags.get(_EXTRA_SAMPLES, ()))
    if not count:
        return None
    return f"{count} of {tags.get(_NUM_SAMPLES, 1)} samples of each pixel had no stated meaning and were ignored"


def unsupported_compression(tags: Any) -> ImageError | None:
    """Return the error for pixels in a compression that is not read, or None if the compression is another one."""
    name = _COMPRESSIONS.get(tags.get(_COMPRESSION, 0))
    if name is None:
        return None
    return ImageError(
        "UnsupportedFormat", f"its pixels are {name} inside a TIFF, which is not supported; convert it first"
    )
