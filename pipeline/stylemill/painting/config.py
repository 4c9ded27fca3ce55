"""Settings of ``stylemill paint``."""

from __future__ import annotations

from dataclasses import dataclass, field

from stylemill.builtin import models_or_builtin
from stylemill.config import inline
from stylemill.errors import ConfigError
from stylemill.images.options import DecodeOptions, EncodeOptions
from stylemill.painting.options import PaintOptions
from stylemill.storage.options import StorageOptions


@dataclass(frozen=True, kw_only=True)
class PaintConfig:
    """Settings of ``stylemill paint``.

    Raises:
        ConfigError: a value is out of range.
    """

    photo: tuple[str, ...]
    """Photos: files, folders (with all below them), globs in quotes, URIs, URLs, or - for standard input."""

    model: tuple[str, ...] = ()
    """Style model: a location, FILE#STYLE, registry:STYLE[@VERSION], or builtin, the styles that come with stylemill
    and the default of --style; repeat to paint several styles."""

    style: tuple[str, ...] = ()
    """Style of the models, or a mixture such as wave:0.7,ink:0.3; may be repeated. By default all styles."""

    out: str | None = None
    """For one picture a file, whose suffix chooses the format and which is replaced, or - for standard output; else a
    folder that mirrors the photos' folders, with one folder for each style if there are several. Defaults to
    PHOTO-STYLE.SUFFIX in the current folder; files of these names are taken for results of earlier runs: where they
    lie among the photos of a folder or a glob, they are not painted. A photo is never replaced; in a folder, other
    files only with --replace."""

    replace: bool = False
    """Replace files in the output folder that have the name of a result."""

    sheet: str | None = None
    """Also draw a contact sheet of all photos and their results into this file (.jpg, .png or .webp), outside of the
    folders of photos. Like a file for --out it is replaced if it exists; a photo or a result never is."""

    registry: str | None = None
    """Location of the registry for registry:STYLE; defaults to the environment variable STYLEMILL_REGISTRY."""

    paint: PaintOptions = inline(PaintOptions)  # noqa: RUF009 (a field)
    decode: DecodeOptions = inline(DecodeOptions)  # noqa: RUF009 (a field)
    encode: EncodeOptions = inline(EncodeOptions)  # noqa: RUF009 (a field)
    storage: StorageOptions = field(default_factory=StorageOptions)

    def __post_init__(self) -> None:
        if not self.photo:
            raise ConfigError("photo", None, "is required", "name a photo, a folder, or - for standard input")
        object.__setattr__(self, "model", models_or_builtin(self.model, self.style))
        if self.photo.count("-") > 1:
            raise ConfigError("photo", "-", "is given twice", "standard input can be read once")
        for name in ("out", "sheet"):
            if getattr(self, name) == "":
                raise ConfigError(name, "", "is empty", "write a path or a URI such as s3://bucket/prefix")
