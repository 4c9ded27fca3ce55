"""What an exception of a Pillow plugin means: an error type of the manifest and a sentence."""

from __future__ import annotations

import re
from typing import Final

from PIL import Image

from stylemill.errors import ImageError
from stylemill.images.formats.sniff import is_truncated

# Texts in the messages of Pillow's plugins.
_TRUNCATED_TEXT: Final = re.compile(
    r"truncat|not enough (?:image )?data|unexpected end|end of (?:file|stream|data)"
    r"|buffer is not large enough|requires a buffer|unpack requires|bytes not processed"
    r"|no more|premature|index out of range",
    re.IGNORECASE,
)
_UNSUPPORTED_TEXT: Final = re.compile(
    r"unsupported|not (?:yet )?(?:supported|implemented)|unknown (?:\w+ ?)?mode|cannot (?:handle|decode)"
    r"|decoder .* not available|buffer overrun|invalid palette size"
    r"|unknown (?:compression|data organization|TGA map depth|filter category)"
    r"|unable to determine J2K|invalid value for samples per pixel|no 32bit icon|cannot read this XPM",
    re.IGNORECASE,
)
_LIBTIFF_ERROR: Final = re.compile(r"^decoder error -\d+$")


def classify(error: Exception, data: bytes, image_format: str) -> ImageError:
    """Return the error of an image for an exception of its plugin.

    Args:
        error: what the plugin has raised; hostile bytes can make it raise anything.
        data: the whole file.
        image_format: its format, from ``sniff``.
    """
    text = "".join(char if char.isprintable() else " " for char in str(error)[:300])
    text = _LIBTIFF_ERROR.sub("its pixels could not be decoded", text)
    text = text.replace("not identified by this driver", "its header is invalid")
    name = image_format.upper()
    if isinstance(error, Image.DecompressionBombError):
        return ImageError("TooManyPixels", text)
    if isinstance(error, EOFError) or _TRUNCATED_TEXT.search(text):
        return ImageError("Truncated", f"the {name} data ends too early or is cut off inside ({text or 'end of file'})")
    if isinstance(error, NotImplementedError) or (_UNSUPPORTED_TEXT.search(text) and not isinstance(error, TypeError)):
        return ImageError("UnsupportedFormat", f"this kind of {name} is not supported ({text})")
    if is_truncated(data, image_format):
        return ImageError("Truncated", f"the {name} data is cut off: its end is not there ({text})")
    detail = text if not isinstance(error, KeyError | IndexError | AttributeError | AssertionError | TypeError) else ""
    return ImageError(
        "Corrupt", f"the {name} data is damaged ({type(error).__name__}{': ' + detail if detail else ''})"
    )
