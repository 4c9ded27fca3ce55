"""Weights of the training loss: of its terms, and of the layers of each loss network. Imports no torch, for configs.

The layer weights were chosen by looking at pictures; docs/choosing-a-style.md shows what others give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from stylemill.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the terms, each divided by its scale; the defaults were chosen for vgg16."""

    content: float = 1.0
    style: float = 1.0
    total_variation: float = 0.2
    grid: float = 100.0
    lattice: float = 2.0


PALETTE = "palette"
"""Name, among the style layers, of the distribution of the picture's own colours."""


@dataclass(frozen=True, kw_only=True)
class LayerWeights:
    """The layers of a loss network that the loss compares, by name, with their shares of the term.

    A term is the weighted mean over its layers, so only the ratios count.
    """

    content: Mapping[str, float]
    style: Mapping[str, float]
    """May have PALETTE, which no loss network computes."""

    @property
    def computed(self) -> set[str]:
        """The layers that the loss network computes, of both terms."""
        return {*self.content, *self.style} - {PALETTE}


def _frozen(**weights: float) -> Mapping[str, float]:
    return MappingProxyType(weights)


LAYERS: Mapping[str, tuple[str, ...]] = {
    "pyramid": tuple(f"level{number}" for number in range(5)),
    "vgg16": tuple(
        f"relu{block}_{number}" for block, last in enumerate((2, 2, 3, 3), 1) for number in range(1, last + 1)
    ),
    "vgg19": tuple(
        f"relu{block}_{number}" for block, last in enumerate((2, 2, 4, 4), 1) for number in range(1, last + 1)
    ),
}
"""Names of the layers of each loss network, from fine to coarse."""

LAYER_WEIGHTS: Mapping[str, LayerWeights] = {
    # Level 1 is deep enough that strokes replace texture, and shallow enough that faces are preserved.
    "pyramid": LayerWeights(
        content=_frozen(level1=1.0),
        style=_frozen(palette=1.0, level0=1.0, level1=1.0, level2=1.0, level3=1.0, level4=1.0),
    ),
    "vgg16": LayerWeights(
        content=_frozen(relu2_2=1.0),
        style=_frozen(palette=4.0, relu1_1=4.0, relu1_2=6.0, relu2_2=4.0, relu3_3=4.0, relu4_3=2.0),
    ),
    "vgg19": LayerWeights(
        content=_frozen(relu2_2=1.0),
        style=_frozen(palette=4.0, relu1_1=4.0, relu1_2=6.0, relu2_2=4.0, relu3_4=4.0, relu4_4=2.0),
    ),
}
"""Defaults by loss network."""


def parse_layers(text: str, known: Sequence[str]) -> dict[str, float]:
    """Read weights of layers as ``NAME=WEIGHT,NAME=WEIGHT``.

    Args:
        text: as a user writes it.
        known: names of layers that there are.
    Raises:
        ValueError: an unknown layer, a weight that is not a number above 0, or no layer at all.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight = part.strip().partition("=")
        if name not in known:
            raise ValueError(f"there is no layer {name!r}, only {', '.join(known)}")
        if name in weights:
            raise ValueError(f"{name} is given twice")
        try:
            weights[name] = float(weight)
        except ValueError:
            raise ValueError(f"{part.strip()!r} is not NAME=WEIGHT") from None
        if not 0 < weights[name] < float("inf"):
            raise ValueError(f"the weight of {name} is not above 0")
    return weights


def chosen_layers(network: str, content: str | None, style: str | None) -> LayerWeights:
    """Return the layers that the fields ``content_layers`` and ``style_layers`` choose; None takes the default.

    Raises:
        ConfigError: a field is not a list of layers of the network.
    """
    chosen, layers = {}, LAYERS[network]
    for term, text, known in (("content", content, layers), ("style", style, (PALETTE, *layers))):
        try:
            chosen[term] = getattr(LAYER_WEIGHTS[network], term) if text is None else parse_layers(text, known)
        except ValueError as error:
            cure = f"write for example {layers[1]}=1"
            raise ConfigError(f"{term}_layers", text, f"is not a list of layers: {error}", cure) from None
    return LayerWeights(**chosen)
