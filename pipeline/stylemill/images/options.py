"""What a user may choose about reading and writing images.

Which key a result gets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from stylemill.config import check_at_least, check_one_of, check_within
from stylemill.errors import ConfigError

Animation = Literal["first", "all"]
OutputFormat = Literal["same", "jpeg", "png", "webp"]
KeepMetadata = Literal["none", "copyright", "all"]


@dataclass(frozen=True, kw_only=True)
class DecodeOptions:
    """How sources are read, and where reading stops."""

    max_pixels: int = 200_000_000
    """Largest source, in pixels (width x height, all frames together for animations); a larger one fails
    with TooManyPixels before it is decoded."""

    max_source_bytes: int = 1 << 30
    """Largest source file in bytes; a larger one fails with TooLarge before it is read."""

    animation: Animation = "first"
    """Animated sources: repaint the first frame only, or all frames and keep their timing."""

    isolate_decoding: bool = True
    """Decode in a child process, so that a crash or a hang inside an image library costs one row; switch it
    off only for sources that you made yourself."""

    decode_timeout_s: float = 60.0
    """Seconds after which decoding one image is given up with DecodeTimeout (isolated decoding only)."""

    decoder_memory_bytes: int = 4 << 30
    """Address space in bytes that the decoding child process may take; an image that wants more fails with
    DecoderMemory (isolated decoding only)."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: a value out of range.
        """
        check_at_least("max_pixels", self.max_pixels, 1)
        check_at_least("max_source_bytes", self.max_source_bytes, 1)
        check_one_of("animation", self.animation, get_args(Animation))
        if not 0 < self.decode_timeout_s < float("inf"):
            raise ConfigError(
                "decode_timeout_s",
                self.decode_timeout_s,
                "is no time limit",
                "give seconds above 0, such as 60",
            )
        check_at_least("decoder_memory_bytes", self.decoder_memory_bytes, 512 << 20)


@dataclass(frozen=True, kw_only=True)
class EncodeOptions:
    """How results are written."""

    format: OutputFormat = "same"
    """Container of the results: that of the source where it can be written, or always the one named."""

    quality: int = 90
    """Quality of lossy containers (JPEG, WebP, AVIF), 1 to 100."""

    keep_metadata: KeepMetadata = "copyright"
    """What of the source's metadata goes into the result: nothing, the names of author and copyright holder,
    or everything except the place (GPS), embedded previews and maker notes, which never do."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: a value out of range.
        """
        check_one_of("format", self.format, get_args(OutputFormat))
        check_one_of("keep_metadata", self.keep_metadata, get_args(KeepMetadata))
        check_within("quality", self.quality, 1, 100)


SUFFIXES: Final[dict[str, tuple[str, ...]]] = {
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "png": (".png", ".apng"),
    "webp": (".webp",),
    "tiff": (".tif", ".tiff"),
    "gif": (".gif",),
    "avif": (".avif", ".avifs"),
    "heif": (".heic", ".heif", ".hif"),
    "jpeg2000": (".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc"),
    "bmp": (".bmp", ".dib"),
    "ppm": (".ppm", ".pnm"),
    "tga": (".tga",),
}
"""Names that say the format of a result, the usual one first."""


def output_key(key: str, output_format: str) -> str:
    """Return the key of a result: the source's own if it already names the format, else with a suffix added.

    ``a.JPG`` stays ``a.JPG`` as a JPEG; ``a.tif`` becomes ``a.tif.png`` as a PNG.

    Args:
        key: the source's key, POSIX.
        output_format: a name among ``SUFFIXES``.
    """
    suffixes = SUFFIXES[output_format]
    name = key.rpartition("/")[2].lower()
    if any(name.endswith(suffix) and len(name) > len(suffix) for suffix in suffixes):
        return key
    return key + suffixes[0]
