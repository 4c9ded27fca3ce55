"""One look for a library: a style model whose norms have the statistics of the library instead of each image's own.

``draw_photos`` takes a sample of the library, ``with_look`` returns the model. It is a style model like any other, with
batch norms, so every form of the network runs it, and large images need fewer passes.
"""

from __future__ import annotations

import hashlib
import heapq
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stylemill.errors import ConfigError, ImageError
from stylemill.images.isolation.client import IsolatedDecoder
from stylemill.images.options import DecodeOptions
from stylemill.painting.fetch import fetch_source
from stylemill.painting.options import PaintOptions
from stylemill.painting.painter import Controls
from stylemill.storage import Storage
from stylemill.storage.sources import find_sources
from stylemill.storage.store import ObjectStat

if TYPE_CHECKING:
    from torch import Tensor

    from stylemill.style_model import StyleModel

log = logging.getLogger(__name__)

NUM_PHOTOS = 32
"""Photographs of a sample."""
WINDOW_PX = 512
"""Largest side of the part of each photograph, its middle, that counts."""
MAX_LISTED = 1_000_000
"""Sources of a library among which the sample is drawn."""
MAX_LISTED_OF_FOLDER = 1_000
"""Entries of a folder among which the sample of its look is drawn."""
_LAST = "\U0010ffff"
_SPARE = 4
"""Sources are drawn this many times over, for those that are no images."""
_DIGITS = 12


def draw_photos(
    storage: Storage, input_uri: str, paint: PaintOptions, decode: DecodeOptions, num: int = NUM_PHOTOS
) -> list[NDArray[np.uint8]]:
    """Return the middles of some photographs of a library, at the size at which the network paints them.

    The choice depends on the keys alone.

    Args:
        storage: where the library is.
        input_uri: resolved location: a prefix, a glob, one file, or a list of locations.
        paint: size and texture scale of the results.
        decode: how photographs are decoded.
        num: of photographs.
    Returns:
        (H, W, 3) uint8 each, sides of at most WINDOW_PX.
    Raises:
        ConfigError: there is no image among those that were drawn.
    """
    drawn = _drawn(islice(find_sources(storage, input_uri), MAX_LISTED), _SPARE * num)
    photos = _first_photos(storage, drawn, paint, decode, num)
    if not photos:
        cure = "leave --look out, or give a library with images"
        raise ConfigError("input", input_uri, "has no image from which a look can be taken", cure)
    return photos


def draw_photos_of_folder(
    storage: Storage, folder: str, paint: PaintOptions, decode: DecodeOptions, num: int
) -> list[NDArray[np.uint8]]:
    """Return the middles of some photographs that lie directly in a folder, as ``draw_photos`` does.

    Only the first MAX_LISTED_OF_FOLDER entries are looked at, and what lies in folders below is passed over without
    being listed, so the cost does not depend on the size of the library.

    Args:
        storage: where the folder is.
        folder: resolved location.
        paint: size and texture scale of the results.
        decode: how photographs are decoded.
        num: of photographs.
    Returns:
        (H, W, 3) uint8 each, sides of at most WINDOW_PX; none if there is no image among the entries.
    Raises:
        StorageError: the listing failed beyond its retries.
    """
    entries = list(islice(_entries(storage, folder), MAX_LISTED_OF_FOLDER))
    files = [found for found in entries if "/" not in found.key]
    return _first_photos(storage, _drawn(files, len(files)), paint, decode, num)


def _entries(storage: Storage, folder: str) -> Iterator[ObjectStat]:
    """Yield the objects directly in a folder, in order of key, and the first object of each folder below."""
    after = ""
    while True:
        for found in storage.list_objects(folder, after, with_denied=True):
            yield found
            below, mark, _ = found.key.partition("/")
            if mark:
                after = f"{below}/{_LAST}"
                break
        else:
            return


def _first_photos(
    storage: Storage, sources: Iterable[ObjectStat], paint: PaintOptions, decode: DecodeOptions, num: int
) -> list[NDArray[np.uint8]]:
    photos: list[NDArray[np.uint8]] = []
    controls = Controls(paint)
    with IsolatedDecoder(decode) as decoder:
        for found in sources:
            if len(photos) == num:
                break
            try:
                data = fetch_source(storage, found.uri, found.size_bytes, decode.max_source_bytes)
                image_HWC = decoder.decode(data).image_HWC
            except ImageError as failure:
                log.info("%s is not part of the look: %s", found.uri, failure)
                continue
            photos.append(_middle(controls.scale_to_network(controls.limit_size(image_HWC))))
    return photos


def _drawn(sources: Iterable[ObjectStat], num: int) -> list[ObjectStat]:
    """Return the sources whose keys have the smallest digests, in their order."""
    usable = (found for found in sources if found.problem_type is None)
    ranked = ((hashlib.sha256(found.key.encode()).digest(), found.uri, found) for found in usable)
    return [found for _, _, found in heapq.nsmallest(num, ranked, key=lambda item: item[:2])]


def _middle(image_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    top, left = (max(0, (side_px - WINDOW_PX) // 2) for side_px in image_HWC.shape[:2])
    # A copy: a view would keep the whole photograph in memory.
    return image_HWC[top : top + WINDOW_PX, left : left + WINDOW_PX].copy()


def with_look(model: StyleModel, photos: Sequence[NDArray[np.uint8]]) -> StyleModel:
    """Return a style model that paints all pictures of a library alike, with the digest of its file.

    Args:
        model: with instance norms.
        photos: a sample of the library, (H, W, 3) uint8 each.
    Raises:
        ConfigError: the model has other norms.
    """
    check_can_have_look(model)
    return with_statistics(model, look_statistics(model, photos))


def check_can_have_look(model: StyleModel) -> None:
    """Raise ConfigError if a model has other norms than instance norms."""
    if model.architecture.norm != "instance":
        problem = f"has {model.architecture.norm} norms, whose statistics are not each image's own"
        raise ConfigError("look", model.name, problem, "leave --look out for this model")


def look_statistics(model: StyleModel, photos: Sequence[NDArray[np.uint8]]) -> dict[str, Tensor]:
    """Return what ``nn.library_norm.library_statistics`` does, of photographs, (H, W, 3) uint8 each."""
    import torch

    from stylemill.nn.library_norm import library_statistics
    from stylemill.nn.pixels import normalize, pad_to_network

    batches = [normalize(torch.from_numpy(pad_to_network(photo_HWC).copy())[None]) for photo_HWC in photos]
    return library_statistics(model.build_network(), batches)


def with_statistics(model: StyleModel, statistics: Mapping[str, Tensor]) -> StyleModel:
    """Return the style model with these statistics in its norms.

    Args:
        model: with instance norms.
        statistics: of ``look_statistics``.
    """
    from stylemill.style_model import to_bytes

    sha256 = hashlib.sha256(model.sha256.encode())
    for key in sorted(statistics):
        sha256.update(statistics[key].numpy().tobytes())
    look = replace(
        model,
        version=sha256.hexdigest()[:_DIGITS],
        architecture=replace(model.architecture, norm="batch"),
        state_dict={**model.state_dict, **statistics},
        metadata={**model.metadata, "look": {"model_sha256": model.sha256}},
        sha256="",
    )
    return replace(look, sha256=hashlib.sha256(to_bytes(look)).hexdigest())
