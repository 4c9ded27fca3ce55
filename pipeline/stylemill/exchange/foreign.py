"""Networks of other implementations: the layouts of their parameters' names.

The layouts follow the sources and scripts of the four repositories; tests under ``tests/unit/exchange`` compare each
one with the arithmetic of its repository. ``checkpoint.py`` reads the files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from stylemill.nn.architecture import IMAGENET, RAW, PixelConvention, Upsampling

_RESIDUALS = range(1, 6)
_PARTS = ("weight", "bias")
_RUNNING = re.compile(r"(.+\.)?in\d+\.(running_mean|running_var|num_batches_tracked)")
"""Statistics that an instance norm of torch 0.3 saved; the current script of pytorch/examples deletes them."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The network of one implementation."""

    name: str
    """The repository it comes from."""
    modules: Mapping[str, str]
    """Our name of each convolution and norm -> theirs."""
    upsampling: Upsampling
    pixels: PixelConvention
    ignored: re.Pattern[str] | None = None
    """Keys that may exist and are ignored."""
    may_end_in_tanh: bool = False
    """Whether a variant with the same keys ends in a scaled tanh."""

    @property
    def keys(self) -> dict[str, str]:
        """Our key of each parameter -> theirs."""
        return {f"{ours}.{part}": f"{theirs}.{part}" for ours, theirs in self.modules.items() for part in _PARTS}


def _named_by_kind(up: str, up_convolution: str) -> dict[str, str]:
    """Return the modules of pytorch/examples and of networks with the same naming."""
    modules = {"head.conv": f"{up}3.conv2d"}
    for number, ours in enumerate(("stem", "down1", "down2"), 1):
        modules |= {f"{ours}.conv": f"conv{number}.conv2d", f"{ours}.norm": f"in{number}"}
    for index in _RESIDUALS:
        for block in (1, 2):
            modules |= {
                f"residual{index}.block{block}.conv": f"res{index}.conv{block}.conv2d",
                f"residual{index}.block{block}.norm": f"res{index}.in{block}",
            }
    for number in (1, 2):
        modules |= {f"up{number}.conv": f"{up}{number}.{up_convolution}", f"up{number}.norm": f"in{number + 3}"}
    return modules


def _numbered() -> dict[str, str]:
    """Return the modules of eriklindernoren's network, which is one sequence."""
    modules = {"head.conv": "model.10.block.1"}
    for ours, number in (("stem", 0), ("down1", 1), ("down2", 2), ("up1", 8), ("up2", 9)):
        modules |= {f"{ours}.conv": f"model.{number}.block.1", f"{ours}.norm": f"model.{number}.norm"}
    for index in _RESIDUALS:
        for block in (1, 2):
            theirs = f"model.{index + 2}.block.{block - 1}"
            modules |= {
                f"residual{index}.block{block}.conv": f"{theirs}.block.1",
                f"residual{index}.block{block}.norm": f"{theirs}.norm",
            }
    return modules


def _in_three_parts() -> dict[str, str]:
    """Return the modules of rrmina's network, which has three parts."""
    modules = {"head.conv": "DeconvBlock.4.conv_layer"}
    for number, ours in enumerate(("stem", "down1", "down2")):
        theirs = f"ConvBlock.{2 * number}"
        modules |= {f"{ours}.conv": f"{theirs}.conv_layer", f"{ours}.norm": f"{theirs}.norm_layer"}
    for index in _RESIDUALS:
        for block in (1, 2):
            theirs = f"ResidualBlock.{index - 1}.conv{block}"
            modules |= {
                f"residual{index}.block{block}.conv": f"{theirs}.conv_layer",
                f"residual{index}.block{block}.norm": f"{theirs}.norm_layer",
            }
    for number in (1, 2):
        theirs = f"DeconvBlock.{2 * (number - 1)}"
        modules |= {f"up{number}.conv": f"{theirs}.conv_transpose", f"up{number}.norm": f"{theirs}.norm_layer"}
    return modules


PYTORCH_EXAMPLES = Layout(
    name="pytorch/examples fast_neural_style",
    modules=_named_by_kind("deconv", "conv2d"),
    upsampling="nearest",
    pixels=RAW,
    ignored=_RUNNING,
)

LAYOUTS = (
    PYTORCH_EXAMPLES,
    Layout(
        name="gordicaleksa/pytorch-nst-feedforward",
        modules=_named_by_kind("up", "conv2d.conv2d"),
        upsampling="nearest",
        pixels=IMAGENET,
    ),
    Layout(
        name="eriklindernoren/Fast-Neural-Style-Transfer",
        modules=_numbered(),
        upsampling="nearest",
        pixels=IMAGENET,
    ),
    Layout(
        name="rrmina/fast-neural-style-pytorch",
        modules=_in_three_parts(),
        upsampling="transposed",
        pixels=PixelConvention(input_scale=1.0, output_scale=1.0, channel_order="bgr", normalisation="none"),
        may_end_in_tanh=True,
    ),
)


def closest_layout(keys: set[str]) -> tuple[Layout, set[str]]:
    """Return the layout that differs from a checkpoint in the fewest keys, and those keys."""

    def differences() -> Iterator[tuple[int, Layout, set[str]]]:
        for layout in LAYOUTS:
            relevant = {key for key in keys if layout.ignored is None or not layout.ignored.fullmatch(key)}
            differing = relevant ^ set(layout.keys.values())
            yield len(differing), layout, differing

    _, layout, differing = min(differences(), key=lambda found: found[0])
    return layout, differing
