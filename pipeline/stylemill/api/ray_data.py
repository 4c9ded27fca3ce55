"""``stylemill.Stylizer``: a stage that paints, for Ray Data pipelines of one's own."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylemill.config import from_mapping, inline
from stylemill.errors import ConfigError, ImageError
from stylemill.images.options import DecodeOptions, EncodeOptions
from stylemill.painting.options import PaintOptions
from stylemill.storage.options import StorageOptions


@dataclass(frozen=True, kw_only=True)
class StylizerConfig:
    """Settings of a ``Stylizer``.

    Raises:
        ConfigError: a value is out of range.
    """

    model: tuple[str, ...]
    """Style models: locations, FILE#STYLE, registry:STYLE[@VERSION], or builtin."""
    style: tuple[str, ...] = ()
    """Styles of the models, or mixtures such as wave:0.7,ink:0.3; empty takes all styles."""
    registry: str | None = None
    """Location of the registry for registry:STYLE; defaults to the environment variable STYLEMILL_REGISTRY."""
    paint: PaintOptions = inline(PaintOptions)  # noqa: RUF009 (a field)
    decode: DecodeOptions = inline(DecodeOptions)  # noqa: RUF009 (a field)
    encode: EncodeOptions = inline(EncodeOptions)  # noqa: RUF009 (a field)
    storage: StorageOptions = field(default_factory=StorageOptions)

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError("model", self.model, "no style model is given", "give one, or a list of them")


class Stylizer:
    """Paints a column of a batch: ``ds.map_batches(stylemill.Stylizer, fn_constructor_kwargs={"model": ...})``.

    The column holds image files as bytes, or decoded uint8 images as ``StyleModel.paint`` takes them. Files are decoded
    and encoded as in a bulk run and give files with the same bytes; arrays give arrays. Of several models each image
    gets one, chosen by its own bytes, so that it stays the same whatever the batches, workers and order. The models are
    loaded once, by the first batch of a worker.

    Args:
        model: location of a style model, or several.
        column: name of the column to paint.
        painted: name of the new column: bytes or arrays; None where an image could not be painted.
        seed: another seed chooses other styles.
        **settings: fields of ``stylemill stylize`` that change pictures, as ``strength=0.8`` or ``format="png"``, and
            ``style``, which chooses or mixes styles of the models.

    Raises:
        ConfigError: a setting that is unknown or wrong.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        column: str = "image",
        painted: str = "painted",
        seed: int = 0,
        **settings: Any,
    ) -> None:
        models = [model] if isinstance(model, (str, os.PathLike)) else list(model)
        self._config = from_mapping(StylizerConfig, {"model": [os.fspath(one) for one in models], **settings})
        self._column, self._painted, self._seed = column, painted, seed
        self._engine: _Engine | None = None

    def __call__(self, batch: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Paint a batch.

        Args:
            batch: columns of equal length, as Ray Data's batch format ``numpy`` has them.

        Returns:
            The batch with three more columns: the pictures; ``style``, the name of the style of each; and ``error``,
            None or why an image could not be painted.

        Raises:
            ConfigError: the column is missing, or holds neither files nor images; a new column exists already; a model
                is missing.
            ClusterError: this machine cannot start a decoder.
        """
        self._check_columns(batch)
        if self._engine is None:
            self._engine = _Engine(self._config)
        images = batch[self._column]
        pictures, styles, errors = (np.empty(len(images), dtype=object) for _ in range(3))
        for index, image in enumerate(images):
            pictures[index], styles[index], errors[index] = self._paint(self._engine, image)
        return {**batch, self._painted: _stacked(pictures), "style": styles, "error": errors}

    def _check_columns(self, batch: Mapping[str, NDArray[Any]]) -> None:
        if self._column not in batch:
            raise ConfigError("column", self._column, "is not in the batch", f"name one of {', '.join(batch)}")
        if self._painted in batch:
            raise ConfigError("painted", self._painted, "is a column of the batch already", "give another name")
        for name in ("style", "error"):
            if name in batch:
                raise ConfigError("column", name, "is a column of the batch already", "rename it before this stage")

    def _paint(self, engine: _Engine, image: object) -> tuple[object, str | None, str | None]:
        if image is None:
            return None, None, "Missing: the row has no image"
        is_file = isinstance(image, bytes | bytearray | memoryview)
        if not is_file and not (isinstance(image, np.ndarray) and image.dtype == np.uint8):
            what = f"arrays of {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
            problem = f"holds {what}, neither files nor uint8 images"
            raise ConfigError("column", self._column, problem, "name the column with bytes or images")
        data = bytes(image) if is_file else image.tobytes()  # type: ignore[call-overload, attr-defined]
        style = self._choose_style(engine, data)
        try:
            picture = engine.paint_file(data, style) if is_file else engine.paint_array(image, style)
        except ImageError as failure:
            return None, style, f"{failure.error_type}: {failure.message}"
        except ValueError as failure:  # another shape, or no pixels
            return None, style, f"UnsupportedFormat: {failure}"
        return picture, style, None

    def _choose_style(self, engine: _Engine, data: bytes) -> str:
        digest = hashlib.sha256(f"{self._seed}:".encode() + data).digest()
        return engine.styles[int.from_bytes(digest[:8], "big") % len(engine.styles)]


class _Engine:
    """The decoder and the networks of one worker."""

    def __init__(self, config: StylizerConfig) -> None:
        from stylemill.images.isolation.client import IsolatedDecoder
        from stylemill.storage import Storage
        from stylemill.style_choice import load_styles

        self._encode = config.encode
        self._decoder = IsolatedDecoder(config.decode)
        models = load_styles(Storage(config.storage), config.model, config.registry, config.style)
        self._painters = {model.name: model.painter(config.paint) for model in models}
        self.styles = list(self._painters)

    def paint_file(self, data: bytes, style: str) -> bytes:
        """Return a file painted, as a file; raise an ImageError if it cannot be."""
        from stylemill.images.encode import encode_painted
        from stylemill.painting.painter import frames_of

        source = self._decoder.decode(data)
        frames_HWC, _ = self._painters[style].paint(frames_of(source))
        return encode_painted(frames_HWC, source, self._encode).data

    def paint_array(self, image: Any, style: str) -> NDArray[np.uint8]:
        """Return an image painted; raise an ImageError if it cannot be, and ValueError if its shape is no image's."""
        from stylemill.painting.pictures import to_array, to_source

        source = to_source(image)
        frames_HWC, _ = self._painters[style].paint([source.image_HWC])
        return to_array(frames_HWC[0], source)


def _stacked(pictures: NDArray[Any]) -> NDArray[Any]:
    """Return arrays of one size as one array, as Ray Data gives them; everything else as it is."""
    if len(pictures) and all(isinstance(one, np.ndarray) and one.shape == pictures[0].shape for one in pictures):
        return np.stack(list(pictures))
    return pictures
