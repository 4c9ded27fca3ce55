"""Which styles a command paints: those of its style models, or the ones that ``--style`` chooses or mixes.

``choose_styles`` reads the files and needs no torch; ``ChosenStyle.load`` returns the ``StyleModel``. A mixture is the
weighted mean of the scales and shifts of the styles' norms, whose convolutions are the same.

Source: Dumoulin et al. 2017, arXiv:1610.07629, section 3.3.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stylemill.errors import ConfigError, config_errors_for
from stylemill.registry import locate_model
from stylemill.storage.user_errors import reading_input
from stylemill.style_file import (
    OWN_PARTS,
    PAINTS_PHOTOGRAPHS,
    have_one_network,
    one_style,
    read_file,
    read_header,
    split_location,
)
from stylemill.style_file import split_styles as split_file

if TYPE_CHECKING:
    from stylemill.storage import Storage
    from stylemill.style_model import StyleModel

log = logging.getLogger(__name__)

_DIGITS = 4
"""Significant digits of a weight in a mixture's name."""
_VERSION_DIGITS = 12
_LONGEST_NAME = 120
"""Bytes of a mixture's name, which names folders and files; longer ones are replaced by a digest."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One style of a mixture."""

    name: str
    source: str
    """Where the style was read from, for messages."""
    file: bytes
    """Of this style alone."""
    weight: float
    """Share of the mixture; all shares sum to 1."""
    is_photo: bool
    """Whether it paints photographs as they are, beside other styles of a file: painted only where it is named."""


@dataclass(frozen=True, kw_only=True)
class ChosenStyle:
    """One style that a command paints: of a file, or a mixture."""

    name: str
    parts: tuple[Part, ...]

    def identity(self) -> tuple[str, str, str]:
        """Return name, version and digest of the model; torch is loaded for a mixture alone."""
        if len(self.parts) > 1:
            model = self.load()
            return model.name, model.version, model.sha256
        header = read_header(self.parts[0].file, source=self.parts[0].source)
        return header.name, header.version, header.sha256

    def load(self) -> StyleModel:
        """Return the model.

        Raises:
            ConfigError: a file is damaged.
        """
        from stylemill.style_model import from_bytes

        models = [from_bytes(part.file, source=part.source) for part in self.parts]
        return models[0] if len(models) == 1 else _mixed(self.name, models, [part.weight for part in self.parts])


def choose_styles(
    storage: Storage,
    uris: Sequence[str],
    registry: str | None = None,
    styles: Sequence[str] = (),
    *,
    may_be_unreadable: bool = False,
    with_photo: bool = False,
) -> list[ChosenStyle]:
    """Return the styles that a command paints, in the order of its flags.

    Args:
        storage: gives access to files and registry.
        uris: locations of style models, ``FILE#STYLE``, or ``registry:STYLE[@VERSION]``.
        registry: location of the registry; None takes the environment variable ``STYLEMILL_REGISTRY``.
        styles: names among the styles of those files, or mixtures as ``wave:0.7,ink:0.3``; empty takes all styles but
            the one that paints photographs as they are.
        with_photo: without ``styles`` take that one, too.
        may_be_unreadable: raise StorageError, not ConfigError, for a file that exists and cannot be read from here.

    Raises:
        ConfigError: a file is missing or not a style model, two styles have the same name, there is no style of a name,
            or a mixture is not one.
    """
    found: dict[str, Part] = {}
    for uri in uris:
        for part in _styles_at(storage, uri, registry, may_be_unreadable):
            if part.name in found:
                problem = f"is a second model of style {part.name!r}"
                raise ConfigError("model", uri, problem, "give one model for each style")
            found[part.name] = part
    chosen: dict[str, ChosenStyle] = {}
    for text in styles or [name for name, part in found.items() if with_photo or not part.is_photo]:
        style = _chosen(text, found)
        if style.name in chosen:
            raise ConfigError("style", text, "is chosen twice", "leave one of them out")
        chosen[style.name] = style
    return list(chosen.values())


def load_styles(
    storage: Storage,
    uris: Sequence[str],
    registry: str | None = None,
    styles: Sequence[str] = (),
    *,
    with_photo: bool = False,
) -> list[StyleModel]:
    """Return the models of ``choose_styles``; raises as it does."""
    return [style.load() for style in choose_styles(storage, uris, registry, styles, with_photo=with_photo)]


def _styles_at(storage: Storage, uri: str, registry: str | None, may_be_unreadable: bool) -> list[Part]:
    reading = nullcontext() if may_be_unreadable else reading_input("model", uri, expected="a style model")
    with (
        reading,
        config_errors_for("model", keep=("registry", "style")),
    ):
        location, style = split_location(locate_model(storage, uri, registry))
        data = read_file(storage, location)
        files = split_file(data, source=uri) if style is None else [one_style(data, style, source=location)]
        headers = [read_header(file, source=uri) for file in files]
    return [
        Part(
            name=header.name,
            source=uri,
            file=file,
            weight=1.0,
            is_photo=len(files) > 1 and header.metadata.get(PAINTS_PHOTOGRAPHS) is True,
        )
        for header, file in zip(headers, files, strict=True)
    ]


def _chosen(text: str, found: Mapping[str, Part]) -> ChosenStyle:
    if text in found:
        return ChosenStyle(name=text, parts=(found[text],))
    weights = _parse(text, found)
    total = sum(weights.values())
    parts = tuple(replace(found[name], weight=weight / total) for name, weight in weights.items())
    first = parts[0]
    for other in parts[1:]:
        if not have_one_network(first.file, other.file):
            problem = f"mixes {first.name} and {other.name}, which have different convolutions"
            raise ConfigError("style", text, problem, "mix styles of one network: stylemill train --add-to")
    shares = {part.name: f"{part.weight:.{_DIGITS}g}" for part in parts}
    if not math.isclose(total, 1.0, rel_tol=1e-6):
        taken = ", ".join(f"{name}:{share}" for name, share in shares.items())
        log.warning("the weights of %s sum to %.4g and are taken as %s", text, total, taken)
    name = "-".join(f"{name}-{share}" for name, share in shares.items())
    if len(name.encode()) > _LONGEST_NAME:
        name = f"mixture-{hashlib.sha256(name.encode()).hexdigest()[:_VERSION_DIGITS]}"
    return ChosenStyle(name=name, parts=parts)


def _parse(text: str, found: Mapping[str, Part]) -> dict[str, float]:
    """Read ``wave:0.7,ink:0.3``."""
    there_are = f"there are {', '.join(found)}"
    weights: dict[str, float] = {}
    for entry in text.split(","):
        name, mark, number = entry.strip().rpartition(":")
        if not mark:
            raise ConfigError("style", text, f"is not among the styles: {there_are}", "choose one, or mix several")
        if name not in found:
            raise ConfigError("style", text, f"mixes {name!r}, but {there_are}", "mix some of them")
        if name in weights:
            raise ConfigError("style", text, f"has {name} twice", "give each style one weight")
        try:
            weights[name] = float(number)
        except ValueError:
            weights[name] = math.nan
        if not 0.0 < weights[name] < math.inf:
            raise ConfigError("style", text, f"has no weight above 0 for {name}", "write for example wave:0.7,ink:0.3")
    if len(weights) == 1:
        cure = "name a second style, or use --strength for less of one"
        raise ConfigError("style", text, "is a mixture of one style", cure)
    return weights


def _mixed(name: str, models: Sequence[StyleModel], weights: Sequence[float]) -> StyleModel:
    """Return the mixture of styles of one network, with the digest of its file."""
    import torch

    from stylemill.style_model import to_bytes

    first = models[0]
    tensors = dict(first.state_dict)
    for key, tensor in tensors.items():
        if OWN_PARTS in key:
            parts = [model.state_dict[key].double() * weight for model, weight in zip(models, weights, strict=True)]
            tensors[key] = torch.stack(parts).sum(dim=0).to(tensor.dtype)
    mixture = [
        {"name": model.name, "version": model.version, "sha256": model.sha256, "weight": weight}
        for model, weight in zip(models, weights, strict=True)
    ]
    version = hashlib.sha256(json.dumps(mixture, sort_keys=True).encode()).hexdigest()[:_VERSION_DIGITS]
    mixed = replace(first, name=name, version=version, state_dict=tensors, metadata={"mixture": mixture}, sha256="")
    return replace(mixed, sha256=hashlib.sha256(to_bytes(mixed)).hexdigest())
