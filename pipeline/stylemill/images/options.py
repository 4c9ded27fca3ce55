"""Settings for decoding and encoding images, and the keys of the results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from stylemill.config import check_at_least, check_one_of, check_within
from stylemill.errors import ConfigError

Animation = Literal["first", "all"]
OutputFormat = Literal["same", "jpeg", "png", "webp"]
KeepMetadata = Literal["none", "copyright", "all"]

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
"""The file name suffixes of each output format, the default one first."""


@dataclass(frozen=True, kw_only=True)
class DecodeOptions:
    """How sources are decoded, and the limits of decoding."""

    max_pixels: int = 200_000_000
    """Largest source in pixels (width x height, summed over all frames of an animation); a larger one fails with
    TooManyPixels before it is decoded."""

    max_source_bytes: int = 1 << 30
    """Largest source file in bytes; a larger one fails with TooLarge before it is read."""

    animation: Animation = "first"
    """Frames of an animated source to repaint: the first only, or all of them with their timing."""

    isolate_decoding: bool = True
    """Decode in a child process, so that a crash or hang of an image library fails one image only; disable it only
    for sources that you trust."""

    decode_timeout_s: float = 60.0
    """Time limit in seconds for decoding one image; a slower one fails with DecodeTimeout (isolated decoding
    only)."""

    decoder_memory_bytes: int = 4 << 30
    """Largest address space of the decoding child process in bytes; an image that needs more fails with
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
                "is not a finite number of seconds above 0",
                "set a limit such as 60",
            )
        check_at_least("decoder_memory_bytes", self.decoder_memory_bytes, 512 << 20)


@dataclass(frozen=True, kw_only=True)
class EncodeOptions:
    """How results are encoded."""

    format: OutputFormat = "same"
    """Format of the results: the same as the source where it can be written, or one format for all results."""

    quality: int = 90
    """Quality of lossy formats (JPEG, WebP, AVIF), 1 to 100."""

    keep_metadata: KeepMetadata = "copyright"
    """Metadata to copy from the source: nothing, the names of author and copyright holder, or everything except
    location (GPS), embedded previews and maker notes, which are never copied."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: a value out of range.
        """
        check_one_of("format", self.format, get_args(OutputFormat))
        check_one_of("keep_metadata", self.keep_metadata, get_args(KeepMetadata))
        check_within("quality", self.quality, 1, 100)


def output_key(key: str, output_format: str) -> str:
    """Return the key of a result: the source's key, with a suffix appended if it does not have one of the format.

    As a JPEG, ``a.JPG`` stays ``a.JPG``; as a PNG, ``a.tif`` becomes ``a.tif.png``.

    Args:
        key: the source's key, POSIX.
        output_format: one of ``SUFFIXES``.
    """
    suffixes = SUFFIXES[output_format]
    name = key.rpartition("/")[2].lower()
    if any(name.endswith(suffix) and len(name) > len(suffix) for suffix in suffixes):
        return key
    return key + suffixes[0]
