"""Looks of libraries and folders in an output location: made by the first run that needs them, and kept for later ones.

The look of a library (``--look library``) is made before the workers start, and is the run's model. The look of a
folder (``--look folder``) is made by the first worker that paints from it: its statistics alone are kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import safetensors.torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from stylemill.config import digest
from stylemill.errors import ConfigError
from stylemill.library_look import (
    check_can_have_look,
    draw_photos,
    draw_photos_of_folder,
    look_statistics,
    with_look,
    with_statistics,
)
from stylemill.painting.painter import ImagePainter
from stylemill.storage import Storage, join
from stylemill.storage.sources import is_prefix
from stylemill.storage.user_errors import listing_input, writing_output
from stylemill.style_model import StyleModel, load_style_model, to_bytes
from stylemill.stylizing.config import StylizeConfig

PHOTOS_OF_FOLDER = 12
"""Photographs of a folder's look. Fewer than of a library's: a series varies less, and every worker may draw one."""
MAX_FOLDERS = 8
"""Folders whose looks a worker keeps ready; keys arrive in order, so few are needed at a time."""


def library_looks(
    storage: Storage,
    config: StylizeConfig,
    source_root: str,
    out: str,
    models: Sequence[StyleModel],
    *,
    may_write: bool,
) -> list[StyleModel]:
    """Return the models with the look of the library.

    Args:
        storage: where sources and output are.
        config: of the run.
        source_root: resolved input location.
        out: resolved output location.
        models: as the user gave them.
        may_write: keep looks that are new.
    Raises:
        ConfigError: there is no image among the sources, a model has other than instance norms, or the output cannot
            be written.
    """
    photos = None
    found: list[StyleModel] = []
    for model in models:
        uri = _look_uri(config, source_root, out, model)
        if not storage.exists(uri):
            if photos is None:
                with listing_input("input", source_root):
                    photos = draw_photos(storage, source_root, config.paint, config.decode)
            look = with_look(model, photos)
            if not may_write:
                found.append(look)
                continue
            with writing_output(out):
                storage.create_bytes(uri, to_bytes(look))  # or another run has just kept it
        found.append(load_style_model(storage, uri))
    return found


def _look_uri(config: StylizeConfig, source_root: str, out: str, model: StyleModel, folder: str | None = None) -> str:
    paint = config.paint
    shaped_by = {"model": model.sha256, "input": source_root, "max_size_px": paint.max_size_px}
    if folder is not None:
        shaped_by["folder"] = folder
    name = digest({**shaped_by, "texture_scale": paint.texture_scale})[:16]
    return join(out, "state", "looks", f"{name}.safetensors")


def check_folder_looks(storage: Storage, source_root: str, models: Sequence[StyleModel]) -> None:
    """Raise ConfigError if folders cannot have looks: of other sources than a folder, or with other norms."""
    if not is_prefix(storage, source_root):
        cure = "give the folder that holds them, or --look library"
        raise ConfigError("input", source_root, "is no folder, in which --look folder could draw photographs", cure)
    for model in models:
        check_can_have_look(model)


class FolderLooks:
    """What paints in the look of each folder.

    Args:
        storage: where sources and output are.
        config: of the run.
        source_root: resolved input location, a folder.
        out: resolved output location.
        models: of the run, with instance norms, by name.
        build: returns what paints with a model.
    """

    def __init__(
        self,
        storage: Storage,
        config: StylizeConfig,
        source_root: str,
        out: str,
        models: Mapping[str, StyleModel],
        build: Callable[[StyleModel], ImagePainter],
    ) -> None:
        self._storage, self._config, self._source_root, self._out = storage, config, source_root, out
        self._models, self._build = models, build
        self._folders: OrderedDict[str, dict[str, ImagePainter | None]] = OrderedDict()
        """Painters by folder and style."""
        self._photos: tuple[str, list[NDArray[np.uint8]]] | None = None
        """The last folder from which photographs were drawn, and these: its styles follow each other."""

    def painter(self, style: str, key: str) -> ImagePainter | None:
        """Return what paints a source in a style with the look of the folder in which it lies.

        Args:
            style: name of the style.
            key: of the source.
        Returns:
            None if no image was found among the first entries of the folder.

        Raises:
            ConfigError: the look that is kept is damaged.
            StorageError: storage failed beyond its retries.
        """
        folder = key.rpartition("/")[0]
        painters = self._folders.setdefault(folder, {})
        self._folders.move_to_end(folder)
        if len(self._folders) > MAX_FOLDERS:
            self._folders.popitem(last=False)
        if style not in painters:
            model = self._models[style]
            statistics = self._statistics(model, folder)
            painters[style] = None if statistics is None else self._build(with_statistics(model, statistics))
        return painters[style]

    def _statistics(self, model: StyleModel, folder: str) -> dict[str, Tensor] | None:
        uri = _look_uri(self._config, self._source_root, self._out, model, folder)
        if not self._storage.exists(uri):
            photos = self._drawn(folder)
            if not photos:
                return None
            # Another worker may have been faster: what is stored counts.
            self._storage.create_bytes(uri, safetensors.torch.save(look_statistics(model, photos)))
        try:
            return safetensors.torch.load(self._storage.read_bytes(uri))
        except SafetensorError as error:
            cure = "remove it, so that it is drawn again, or restore it"
            raise ConfigError("out", uri, f"is a damaged look ({error})", cure) from error

    def _drawn(self, folder: str) -> list[NDArray[np.uint8]]:
        if self._photos is None or self._photos[0] != folder:
            location = join(self._source_root, folder) if folder else self._source_root
            options = self._config.paint, self._config.decode
            self._photos = folder, draw_photos_of_folder(self._storage, location, *options, PHOTOS_OF_FOLDER)
        return self._photos[1]
