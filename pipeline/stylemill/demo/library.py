"""The demo's image library and training images: real photographs, of mixed formats, with a few damaged files.

The photographs come from the installed scikit-image wheel (``skimage/data``), so nothing is downloaded. Their origin
and licence according to scikit-image:

=====================  ==========================================================================
file                   origin and licence
=====================  ==========================================================================
astronaut.png          Eileen Collins; NASA Great Images, public domain
camera.png             photograph by Lav Varshney, CC0
chelsea.png            cat, photograph by Stefan van der Walt, CC0
coffee.png             photograph by Rachel Michetti, CC0; courtesy of Pikolo Espresso Bar
coins.png              Greek coins from Pompeii; Brooklyn Museum, no known copyright restrictions
gravel.png             CC0Textures (Gravel04), CC0
hubble_deep_field.jpg  Hubble extreme deep field; NASA, public domain
logo.png               the logo of scikit-image, part of its distribution (BSD-3-Clause)
moon.png               surface of the moon, part of the distribution (BSD-3-Clause)
motorcycle_left.png,   Middlebury Stereo 2014 (D. Scharstein et al., GCPR 2014); scikit-image names
motorcycle_right.png   no separate licence
retina.jpg             fundus of a normal left eye, Mikael Häggström (Wikimedia Commons), CC0
rocket.jpg             launch of DSCOVR on Falcon 9; SpaceX, public domain
=====================  ==========================================================================
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from PIL import Image

from stylemill.errors import ConfigError

Box = tuple[float, float, float, float]
_EXIF_ORIENTATION = 0x0112
# Orientation 6: the image must be rotated by 90 degrees clockwise for display; phones held upright write it.
_ROTATE_CLOCKWISE = 6


@dataclass(frozen=True, kw_only=True)
class Library:
    """A library written by ``build_library``."""

    root: Path
    keys: tuple[str, ...]
    """All files relative to ``root``, as POSIX paths, sorted."""
    damaged_keys: tuple[str, ...]
    """Keys of the files that cannot be repainted, on purpose."""


def build_library(root: Path) -> Library:
    """Write the demo's library: 27 pictures, and four files that are not valid images.

    Sizes, formats, qualities and modes are mixed. Some names contain spaces or characters outside ASCII, one photo is
    stored rotated with an EXIF orientation, one picture has an alpha channel, and some are grayscale. Existing files
    with the same bytes are not written again.

    Args:
        root: folder of the library; created if it is missing.

    Returns:
        The folder with its keys.

    Raises:
        ConfigError: scikit-image, which contains the photographs, is not installed.
        OSError: root cannot be written.
    """
    _photo_folder()
    contents = {**dict(_pictures()), **_damaged()}
    for key, data in contents.items():
        _write_if_changed(root / key, data)
    return Library(root=root, keys=tuple(sorted(contents)), damaged_keys=tuple(sorted(_damaged())))


def build_training_content(root: Path, *, side_px: int = 320) -> tuple[str, ...]:
    """Write square crops of the photographs as training images: whole views, details and their mirror images.

    Pictures unlike all others (retina, logo) are left out: among so few images they would shift the colours that the
    network learns.

    Args:
        root: folder of the crops; created if it is missing.
        side_px: side of a crop in pixels.

    Returns:
        The names of the JPEG files, sorted.

    Raises:
        ConfigError: scikit-image, which contains the photographs, is not installed.
        OSError: root cannot be written.
    """
    names = []
    for photo, boxes in _TRAINING_CROPS.items():
        image = _photo(photo).convert("RGB")
        for number, box in enumerate(boxes):
            crop = _crop(image, box).resize((side_px, side_px), Image.Resampling.LANCZOS)
            for mirrored in (False, True):
                name = f"{Path(photo).stem}-{number}{'-mirrored' if mirrored else ''}.jpg"
                view = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else crop
                _write_if_changed(root / name, _encode(view, "JPEG", quality=92))
                names.append(name)
    return tuple(sorted(names))


# Crops by photo: (left, top, right, bottom) as fractions of its size, chosen to be square in pixels.
_TRAINING_CROPS: dict[str, tuple[Box, ...]] = {
    "astronaut.png": ((0, 0, 1, 1), (0.2, 0, 0.7, 0.5), (0, 0.3, 0.6, 0.9), (0.5, 0, 1, 0.5)),
    "chelsea.png": ((0.15, 0, 0.815, 1), (0.33, 0.05, 0.83, 0.8), (0, 0.2, 0.4, 0.8)),
    "coffee.png": ((0.1, 0, 0.767, 1), (0.25, 0, 0.65, 0.6), (0.35, 0.3, 0.75, 0.9), (0.6, 0.4, 1, 1)),
    "rocket.jpg": ((0.17, 0, 0.837, 1), (0.3, 0.4, 0.7, 1), (0, 0.4, 0.4, 1)),
    "motorcycle_left.png": (
        (0.16, 0, 0.835, 1),
        (0.1, 0.2, 0.6, 0.94),
        (0.45, 0, 0.85, 0.593),
        (0.62, 0.4, 0.98, 0.93),
        (0, 0, 0.36, 0.534),
    ),
    "motorcycle_right.png": ((0.3, 0.3, 0.7, 0.893), (0.0, 0.3, 0.4, 0.893), (0.58, 0, 0.98, 0.593)),
    "camera.png": ((0, 0, 1, 1), (0.2, 0, 0.75, 0.55), (0.4, 0.4, 1, 1)),
    "hubble_deep_field.jpg": ((0.2, 0.2, 0.6, 0.66),),
    "gravel.png": ((0.1, 0.1, 0.6, 0.6),),
    "coins.png": ((0.1, 0, 0.88, 0.99),),
}


def _pictures() -> Iterator[tuple[str, bytes]]:
    """Yield (key, bytes) of the valid pictures of the library."""
    photos: dict[str, Image.Image] = {}

    def view(photo: str, box: Box = (0, 0, 1, 1), width_px: int | None = None) -> Image.Image:
        image = photos.setdefault(photo, _photo(photo))
        part = _crop(image, box)
        if width_px is None:
            return part
        height_px = max(1, round(part.height * width_px / part.width))
        return part.resize((width_px, height_px), Image.Resampling.LANCZOS)

    yield "people/astronaut.jpg", _encode(view("astronaut.png"), "JPEG", quality=92)
    portrait = view("astronaut.png", (0.2, 0.0, 0.68, 0.56))
    yield "people/Eileen Collins, portrait.png", _encode(portrait, "PNG")
    yield "people/helmet.webp", _encode(view("astronaut.png", (0.5, 0.6, 1, 1), 301), "WEBP", quality=80)
    yield "people/photographer.jpg", _encode(view("camera.png"), "JPEG", quality=85)
    yield "people/photographer small.png", _encode(view("camera.png", width_px=187), "PNG")
    yield "animals/chelsea.jpg", _encode(view("chelsea.png"), "JPEG", quality=95)
    yield "animals/猫 – Chelsea.webp", _encode(view("chelsea.png", width_px=402), "WEBP", quality=90)
    yield "animals/eyes/left eye.png", _encode(view("chelsea.png", (0.35, 0.12, 0.72, 0.62)), "PNG")
    whiskers = view("chelsea.png", (0.45, 0.4, 1, 1), 333)
    yield "animals/whiskers.jpg", _encode(whiskers, "JPEG", quality=60)
    yield "table/coffee.jpg", _encode(view("coffee.png"), "JPEG", quality=90)
    yield "table/café/espresso.png", _encode(view("coffee.png", (0.15, 0, 0.75, 0.75)), "PNG")
    yield "table/café/spoon.webp", _encode(view("coffee.png", (0.5, 0.35, 0.9, 0.85)), "WEBP", quality=70)
    yield "table/saucer.jpg", _encode(view("coffee.png", (0.05, 0.3, 0.6, 1), 255), "JPEG", quality=40)
    yield "machines/motorcycle.jpg", _encode(view("motorcycle_left.png"), "JPEG", quality=90)
    engine = view("motorcycle_left.png", (0.3, 0.35, 0.7, 0.85))
    yield "machines/motorcycle/engine.png", _encode(engine, "PNG")
    wheel = view("motorcycle_right.png", (0.55, 0.35, 0.95, 0.95), 419)
    yield "machines/motorcycle/front wheel.jpg", _encode(wheel, "JPEG", quality=75)
    workshop = view("motorcycle_right.png", width_px=500)
    yield "machines/workshop.webp", _encode(workshop, "WEBP", quality=85)
    yield "space/launch.jpg", _encode(view("rocket.jpg"), "JPEG", quality=90)
    upright = view("rocket.jpg", (0.3, 0, 0.72, 1))
    yield "space/launch, held upright.jpg", _encode_rotated(upright)
    yield "space/lights.png", _encode(view("rocket.jpg", (0, 0.6, 0.62, 1)), "PNG")
    yield "space/deep field.jpg", _encode(view("hubble_deep_field.jpg", width_px=640), "JPEG", quality=85)
    galaxies = view("hubble_deep_field.jpg", (0.55, 0.35, 0.95, 0.7))
    yield "space/galaxies.webp", _encode(galaxies, "WEBP", quality=90)
    yield "space/moon.png", _encode(view("moon.png", width_px=384), "PNG")
    yield "science/retina.jpg", _encode(view("retina.jpg", width_px=480), "JPEG", quality=88)
    yield "science/coins.jpg", _encode(view("coins.png"), "JPEG", quality=80)
    yield "science/gravel.png", _encode(view("gravel.png", (0, 0, 0.61, 0.43)), "PNG")
    yield "logo, transparent.png", _encode(view("logo.png", width_px=360), "PNG")


def _damaged() -> dict[str, bytes]:
    """Return the files that are not valid images, by key."""
    coffee = _encode(_photo("coffee.png").resize((450, 300), Image.Resampling.LANCZOS), "JPEG", quality=85)
    page = b"<!doctype html>\n<html><body><h1>404 Not Found</h1><p>a.jpg is gone.</p></body></html>\n"
    notes = "Notes of the archivist: the café series was scanned in 2019; colours unchecked.\n"
    return {
        "inbox/upload cut off.jpg": coffee[: len(coffee) * 2 // 5],
        "inbox/empty.jpg": b"",
        "inbox/saved by mistake.jpg": page,
        "table/café/notes.txt": notes.encode(),
    }


def _photo_folder() -> Any:
    try:
        folder = resources.files("skimage") / "data"
    except ModuleNotFoundError as error:
        raise ConfigError(
            "demo",
            "scikit-image",
            "is not installed; its wheel contains the photographs",
            "pip install 'stylemill[demo]'",
        ) from error
    return folder


def _photo(name: str) -> Image.Image:
    image = Image.open(io.BytesIO((_photo_folder() / name).read_bytes()))
    image.load()
    return image


def _crop(image: Image.Image, box: Box) -> Image.Image:
    left, top, right, bottom = box
    width, height = image.size
    return image.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))


def _encode(image: Image.Image, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    if image_format != "PNG" and image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    image.save(buffer, format=image_format, **options)
    return buffer.getvalue()


def _encode_rotated(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[_EXIF_ORIENTATION] = _ROTATE_CLOCKWISE
    rotated = image.transpose(Image.Transpose.ROTATE_90)
    return _encode(rotated, "JPEG", quality=88, exif=exif.tobytes())


def _write_if_changed(path: Path, data: bytes) -> None:
    """Write a file unless it has this content already, so that its modification time and etag stay the same."""
    if path.exists() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".draft")
    temporary.write_bytes(data)
    temporary.replace(path)
