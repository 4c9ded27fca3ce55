"""Looks of libraries in an output location: made by its first run over some sources, and kept for all later ones."""

from __future__ import annotations

from collections.abc import Sequence

from stylemill.config import digest
from stylemill.library_look import draw_photos, with_look
from stylemill.storage import Storage, join
from stylemill.storage.user_errors import listing_input, writing_output
from stylemill.style_model import StyleModel, load_style_model, to_bytes
from stylemill.stylizing.config import StylizeConfig


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


def _look_uri(config: StylizeConfig, source_root: str, out: str, model: StyleModel) -> str:
    paint = config.paint
    shaped_by = {"model": model.sha256, "input": source_root, "max_size_px": paint.max_size_px}
    name = digest({**shaped_by, "texture_scale": paint.texture_scale})[:16]
    return join(out, "state", "looks", f"{name}.safetensors")
