"""The Pillow plugins that may read a source: a fixed list, called directly.

``Image.open`` tries every registered plugin. Some of those start external programs (EPS) or call whatever handler is
registered. Here the format that ``sniff`` has found selects exactly one plugin.
"""

from __future__ import annotations

import contextlib
import encodings
import importlib
import io
import pkgutil
from functools import cache
from typing import Any, Final

from PIL import ImageFile, features

from stylemill.errors import ImageError
from stylemill.images.formats.png_ancillary import LARGEST_TEXT_BYTES

_PLUGINS: Final[dict[str, tuple[str, str]]] = {
    "jpeg": ("PIL.JpegImagePlugin", "JpegImageFile"),
    "png": ("PIL.PngImagePlugin", "PngImageFile"),
    "gif": ("PIL.GifImagePlugin", "GifImageFile"),
    "tiff": ("PIL.TiffImagePlugin", "TiffImageFile"),
    "webp": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "avif": ("PIL.AvifImagePlugin", "AvifImageFile"),
    "jpeg2000": ("PIL.Jpeg2KImagePlugin", "Jpeg2KImageFile"),
    "bmp": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "ico": ("PIL.IcoImagePlugin", "IcoImageFile"),
    "cur": ("PIL.CurImagePlugin", "CurImageFile"),
    "icns": ("PIL.IcnsImagePlugin", "IcnsImageFile"),
    "ppm": ("PIL.PpmImagePlugin", "PpmImageFile"),
    "psd": ("PIL.PsdImagePlugin", "PsdImageFile"),
    "qoi": ("PIL.QoiImagePlugin", "QoiImageFile"),
    "dds": ("PIL.DdsImagePlugin", "DdsImageFile"),
    "sun": ("PIL.SunImagePlugin", "SunImageFile"),
    "sgi": ("PIL.SgiImagePlugin", "SgiImageFile"),
    "pcx": ("PIL.PcxImagePlugin", "PcxImageFile"),
    "tga": ("PIL.TgaImagePlugin", "TgaImageFile"),
    "xbm": ("PIL.XbmImagePlugin", "XbmImageFile"),
    "xpm": ("PIL.XpmImagePlugin", "XpmImageFile"),
    "heif": ("pillow_heif", "HeifImageFile"),
}

_ON_DEMAND: Final = (
    "PIL.ExifTags",
    "PIL.ImageCms",
    "PIL.ImageColor",
    "PIL.ImageFilter",
    "PIL.ImageOps",
    "PIL.ImagePalette",
    "PIL.ImageSequence",
    "PIL.MpoImagePlugin",
    "PIL.TiffTags",
    "_strptime",
    "random",
    "xml.etree.ElementTree",
)
"""Modules that Pillow, or Python itself, imports while an image is decoded; text encodings are another kind."""

_FEATURES: Final = {"webp": "webp", "avif": "avif", "jpeg2000": "jpg_2000"}

_UNSUPPORTED: Final = {
    "svg": "an SVG drawing",
    "eps": "a PostScript drawing",
    "wmf": "a Windows metafile",
    "emf": "a Windows metafile",
    "raw": "a camera raw file",
    "jxl": "a JPEG XL image",
    "jpegxr": "a JPEG XR image",
    "exr": "an OpenEXR image",
    "hdr": "a Radiance image",
    "dicom": "a DICOM image",
    "xcf": "a GIMP document",
    "bigtiff": "a BigTIFF file in big-endian byte order",
    "pam": "a PAM image",
    "pfm": "a PFM image with colours",
    "farbfeld": "a farbfeld image",
    "psb": "a large Photoshop document",
    "pdn": "a Paint.NET document",
    "pvr": "a PowerVR texture",
    "astc": "an ASTC texture",
    "vtf": "a Valve texture",
    "clip": "a Clip Studio document",
    "pgx": "a PGX image",
    "nitf": "a NITF image",
    "jxs": "a JPEG XS image",
    "ilbm": "an Amiga IFF image",
    "cdr": "a CorelDRAW drawing",
    "pcd": "a Kodak Photo CD image",
    "krita": "a Krita document",
    "openraster": "an OpenRaster document",
    "pict": "a QuickDraw picture",
}


def open_image(data: bytes, image_format: str) -> ImageFile.ImageFile:
    """Read the header of a source with the plugin of its format; no pixel is decoded yet.

    Args:
        data: the whole file.
        image_format: its format, from ``sniff``.

    Raises:
        ImageError: ``UnsupportedFormat``, with a cure. Other exceptions of the plugin are not caught.
    """
    return _factory(image_format)(io.BytesIO(data))


def import_plugins() -> None:
    """Import every installed plugin with what it imports on demand: the decoder's child opens no files later."""
    for image_format in _PLUGINS:
        with contextlib.suppress(ImageError):  # raised again for an image of this format
            _factory(image_format)
    for module in _ON_DEMAND:
        importlib.import_module(module)
    for found in pkgutil.iter_modules(encodings.__path__):
        with contextlib.suppress(ImportError):  # of another system, or of a module that this Python was built without
            importlib.import_module(f"encodings.{found.name}")


@cache
def _factory(image_format: str) -> Any:
    if image_format not in _PLUGINS:
        what = _UNSUPPORTED.get(image_format, f"an image in the format {image_format.upper()}")
        raise ImageError("UnsupportedFormat", f"it is {what}, which is not supported; convert it to PNG or TIFF first")
    feature = _FEATURES.get(image_format)
    if feature and not features.check(feature):
        raise ImageError(
            "UnsupportedFormat", f"this build of Pillow cannot read {image_format.upper()}; install a full build"
        )
    module, name = _PLUGINS[image_format]
    try:
        plugin = importlib.import_module(module)
    except ImportError as error:
        cure = "install the extra: pip install 'stylemill[heif]'" if image_format == "heif" else str(error)
        raise ImageError("UnsupportedFormat", f"{image_format.upper()} images cannot be read here; {cure}") from error
    if image_format == "png":
        vars(plugin)["MAX_TEXT_CHUNK"] = LARGEST_TEXT_BYTES
    return getattr(plugin, name)
