"""What the fast form makes of a network, in words."""

from __future__ import annotations

from pipeline.nn.architecture import Architecture

_UPSAMPLING = {
    "nearest": "nearest upsampling is folded into two kernels on the small map",
    "transposed": "the transposed convolutions are folded into two kernels on the small map",
    "shuffle": "the pixel shuffles are folded into the order of the kernels",
}
_STATISTICS = {
    "instance": "instance norm takes the statistics of each channel over the whole image",
    "layer": "layer norm takes statistics over the whole image, all channels together",
    "group": "group norm takes statistics over the whole image, groups of channels together",
}


def folded(architecture: Architecture) -> list[str]:
    """Return what the fast and tiled forms have folded into convolutions: it costs nothing."""
    parts = ["the pixels' scale and order are folded into the first convolution"]
    if architecture.output == "linear":
        parts[0] = "the pixels' scale and order are folded into the first and last convolution"
    if architecture.upsampling in _UPSAMPLING:
        parts.append(_UPSAMPLING[architecture.upsampling])
    if architecture.norm == "batch":
        parts.append("batch norm is a scale and shift: no statistics, so large images take a pass less for each")
    return parts


def not_folded(architecture: Architecture) -> list[str]:
    """Return what they do as the plain network does it."""
    parts = []
    if architecture.upsampling not in _UPSAMPLING:
        parts.append(f"{architecture.upsampling} upsampling runs before its convolutions, at full size")
    if architecture.norm != "batch":
        parts.append(_STATISTICS[architecture.norm])
    if architecture.residual == "separable":
        parts.append("each separable convolution is two, with a map between them")
    if architecture.output == "tanh":
        parts.append("the tanh stands between the last convolution and its scale")
    return parts
