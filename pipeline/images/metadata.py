"""What of a source's metadata may go into the result."""

from __future__ import annotations

from PIL import ExifTags, Image

from pipeline.images.source_image import Metadata


def orientation_of(image: Image.Image, image_format: str) -> int:
    """Return how the pixels must be turned, 1 where they are upright already.

    TIFF and HEIF are turned by their plugins.
    """
    if image_format in ("tiff", "heif") or not ("exif" in image.info or "xmp" in image.info):
        return 1
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - damaged EXIF must not cost the picture
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def read_metadata(image: Image.Image, orientation: int) -> Metadata:
    """Collect what may be kept."""
    return Metadata(dpi=_dpi(image, orientation))


def _dpi(image: Image.Image, orientation: int) -> tuple[float, float] | None:
    try:
        x, y = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    if not (1 <= x <= 100_000 and 1 <= y <= 100_000):
        return None
    return (y, x) if orientation >= 5 else (x, y)
