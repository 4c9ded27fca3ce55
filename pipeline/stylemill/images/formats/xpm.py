"""XPM files: colours and layouts that Pillow does not read, or reads as other colours.

Pillow takes every number of a colour as one of six digits, so that ``#000011112222`` and ``#012`` become other colours,
knows no names, and wants each string in a line of its own without remarks. ``with_plain_colours`` writes the file anew
in the form that Pillow reads. A file with a part missing it leaves to Pillow, which refuses it.

Sources: A. Nahaboo, "XPM Manual: the X PixMap format, version 3.4" (1993); the colours of X11's ``rgb.txt``, which are
those of CSS but for four names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from PIL import ImageColor

from stylemill.errors import ImageError

_OPENING: Final = re.compile(rb'/\*|"')
_HEADER: Final = re.compile(rb"\s*(\d{1,9})\s+(\d{1,9})\s+(\d{1,9})\s+(\d{1,2})(?:\s|$)")
_NUMBER: Final = re.compile(r"#((?:[0-9a-f]{3}){1,4})")
_GRAY: Final = re.compile(r"gr[ae]y(\d{1,3})")
_KEYS: Final = (b"c", b"g", b"g4", b"m", b"s")
"""What stands in front of a colour: for screens with colours, grays, four grays and black and white; or of a name."""
_UNLIKE_CSS: Final = {
    "gray": "#bebebe",
    "grey": "#bebebe",
    "green": "#00ff00",
    "maroon": "#b03060",
    "purple": "#a020f0",
}


def with_plain_colours(data: bytes) -> bytes:
    """Return an XPM file with its colours as six hexadecimal digits, each string in a line of its own.

    Args:
        data: the whole file.

    Returns:
        The file; as it is if a part of it is missing.

    Raises:
        ImageError: ``UnsupportedFormat``: a colour is not known.
    """
    strings = _strings(data)
    header = _HEADER.match(next(strings, b""))
    if header is None:
        return data
    width, height, num_colors, num_signs = (int(number) for number in header.groups())
    lines = [b"%d %d %d %d" % (width, height, num_colors, num_signs)]
    # The numbers of the header are not trusted: each loop ends with the strings of the file.
    for _ in range(num_colors):
        text = next(strings, None)
        if text is None:
            return data
        color = _color(text[num_signs:])
        if color is None:
            what = text[num_signs : num_signs + 40].decode("ascii", "replace")
            raise ImageError("UnsupportedFormat", f"this kind of XPM is not supported (unknown colour {what!r})")
        lines.append(text[:num_signs] + b" c " + color)
    for _ in range(height):
        text = next(strings, None)
        if text is None or len(text) != width * num_signs:
            return data
        lines.append(text)
    if any(b"\n" in line for line in lines):
        return data
    return b"/* XPM */\nstatic char *picture[] = {\n" + b"".join(b'"%b",\n' % line for line in lines) + b"};\n"


def _strings(data: bytes) -> Iterator[bytes]:
    """Yield the content of each string outside remarks."""
    at = 0
    while opening := _OPENING.search(data, at):
        closing = b'"' if opening.group() == b'"' else b"*/"
        end = data.find(closing, opening.end())
        if end < 0:
            return
        if closing == b'"':
            yield data[opening.end() : end]
        at = end + len(closing)


def _color(text: bytes) -> bytes | None:
    """Return the best colour of a line, ``#rrggbb`` or ``None``; None if there is none that is known.

    Args:
        text: keys and colours; a colour may be a name of several words.
    """
    found: dict[bytes, list[bytes]] = {}
    words: list[bytes] | None = None
    for word in text.split():
        if word in _KEYS and words != []:
            words = found.setdefault(word, [])
        elif words is None:
            return None
        else:
            words.append(word)
    best = next((found[key] for key in _KEYS[:-1] if found.get(key)), None)
    if best is None:
        return None
    name = b"".join(best).decode("latin-1").lower()
    if name == "none":
        return b"None"
    if number := _NUMBER.fullmatch(name):
        return _six_digits(number.group(1))
    gray = _GRAY.fullmatch(name)  # in hundredths, rounded as in rgb.txt
    if gray and int(gray.group(1)) <= 100:
        return b"#" + b"%02x" % int(int(gray.group(1)) * 2.55 + 0.5) * 3
    # Pillow replaces names that it has looked up by three numbers.
    known = _UNLIKE_CSS.get(name, ImageColor.colormap.get(name))
    return known.encode() if isinstance(known, str) else known and b"#%02x%02x%02x" % known


def _six_digits(digits: str) -> bytes:
    """Scale three numbers of one to four hexadecimal digits each to two digits."""
    size = len(digits) // 3
    top = 16**size - 1
    values = (int(digits[at : at + size], 16) for at in range(0, 3 * size, size))
    return b"#" + b"".join(b"%02x" % ((2 * value * 255 + top) // (2 * top)) for value in values)
