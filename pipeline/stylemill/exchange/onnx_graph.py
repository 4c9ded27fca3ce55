"""A network as an ONNX graph, built operator by operator, for any batch, height and width.

Not by ``torch.onnx.export(dynamo=True)``: equal outputs and speed, but 17 s instead of 0.03 s and another dependency.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from stylemill import __version__
from stylemill.nn.norms import AnyNorm, BatchNorm, StyleNorm
from stylemill.nn.pixels import MIN_SIDE_PX
from stylemill.nn.transformer_net import SIZE_MULTIPLE_PX, ConvBlock, ResidualBlock, TransformerNet

OPSET = 18
IR_VERSION = 9
"""Both are of 2023, so runtimes since then read the graph."""

STYLE_WEIGHTS = "style_weights"
"""Name of the second input of a network of several styles."""

_BICUBIC = -0.75
"""Coefficient of torch; it equals the default of ONNX and is written explicitly."""
_FILLS = (("ones", 1.0), ("zeros", 0.0))
_MODES = {"nearest": "nearest", "bilinear": "linear", "bicubic": "cubic"}


def to_onnx(net: TransformerNet, metadata: Mapping[str, str]) -> bytes:
    """Return a model with the input ``pixels`` and the output ``painted``.

    A network of several styles has a second input, ``style_weights``: (S,) float32, the share of each style.

    Both are (N, 3, H, W) float32 levels of 0 to 255, red first. Sides that are not multiples of 4 are padded by
    reflection at the bottom and right, and cropped at the end; the result is clamped, not rounded.

    Args:
        net: a network with raw pixels (see ``with_raw_pixels``).
        metadata: properties that are stored in the model.
    """
    graph = _Graph()
    features = graph.pad_to_network("pixels")
    for name, block in net.named_children():
        features = _block(graph, features, name, block)
    pixels = net.architecture.pixels
    if net.architecture.output == "tanh":
        scale = graph.constant("output_scale", np.float32(pixels.output_scale))
        features = graph.add("Mul", [graph.add("Tanh", [features], "tanh"), scale], "scaled")
    graph.crop_and_clamp(features, "painted")
    sides = ["batch", 3, "height", "width"]
    pixels_in, painted_out = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, sides) for name in ("pixels", "painted")
    )
    inputs = [pixels_in]
    if net.num_styles > 1:
        inputs.append(helper.make_tensor_value_info(STYLE_WEIGHTS, TensorProto.FLOAT, [net.num_styles]))
    made = helper.make_graph(graph.nodes, "stylemill", inputs, [painted_out], graph.initializers)
    model = helper.make_model(
        made,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="stylemill",
        producer_version=__version__,
    )
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


class _Graph:
    """Nodes in their order, and the constants that they read."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._names: set[str] = set()

    def constant(self, name: str, values: NDArray | np.generic | Sequence[int]) -> str:
        """Add a constant once; whole numbers become int64."""
        if name not in self._names:
            self._names.add(name)
            array = np.asarray(values)
            if array.dtype.kind == "i":
                array = array.astype(np.int64)
            self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def parameter(self, name: str, tensor: Tensor) -> str:
        """Add a parameter as float32."""
        return self.constant(name, tensor.detach().float().cpu().numpy())

    def add(self, operator: str, inputs: Sequence[str], output: str, **attributes: object) -> str:
        """Add a node with one output and return the output's name."""
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def reflect(self, features: str, padding_px: int, name: str) -> str:
        """Pad all four sides."""
        if not padding_px:
            return features
        pads = self.constant(f"pads{padding_px}", [0, 0, padding_px, padding_px] * 2)
        return self.add("Pad", [features, pads], f"{name}.padded", mode="reflect")

    def pad_to_network(self, pixels: str) -> str:
        """Pad bottom and right to a multiple of 4 and to at least 16 px."""
        self.add("Shape", [pixels], "sides", start=2, end=4)
        multiple = self.constant("multiple", [SIZE_MULTIPLE_PX])
        self.add("Add", ["sides", self.constant("multiple_less_1", [SIZE_MULTIPLE_PX - 1])], "sides_up")
        self.add("Mul", [self.add("Div", ["sides_up", multiple], "quarters"), multiple], "rounded_sides")
        self.add("Max", ["rounded_sides", self.constant("smallest", [MIN_SIDE_PX])], "padded_sides")
        self.add("Sub", ["padded_sides", "sides"], "beyond")
        self.add("Concat", [self.constant("no_pads", [0] * 6), "beyond"], "pads", axis=0)
        return self.add("Pad", [pixels, "pads"], "padded_pixels", mode="reflect")

    def crop_and_clamp(self, features: str, output: str) -> None:
        """Crop what ``pad_to_network`` added and clamp to levels of 0 to 255."""
        starts, axes = self.constant("origin", [0, 0]), self.constant("height_and_width", [2, 3])
        self.add("Slice", [features, starts, "sides", axes], "cropped")
        low, high = (self.constant(f"level{level}", np.float32(level)) for level in (0, 255))
        self.add("Clip", ["cropped", low, high], output)


def _block(graph: _Graph, features: str, name: str, block: nn.Module) -> str:
    if isinstance(block, ResidualBlock):
        inner = _block(graph, features, f"{name}.block1", block.block1)
        inner = _block(graph, inner, f"{name}.block2", block.block2)
        return graph.add("Add", [inner, features], f"{name}.sum")
    if not isinstance(block, ConvBlock):
        raise TypeError(f"{name} is a {type(block).__name__}")
    features = _convolution(graph, features, name, block)
    if block.norm is not None:
        features = _norm(graph, features, f"{name}.norm", block.norm)
    return graph.add("Relu", [features], f"{name}.relu") if block.relu else features


def _convolution(graph: _Graph, features: str, name: str, block: ConvBlock) -> str:
    conv = block.conv
    weight = graph.parameter(f"{name}.conv.weight", conv.weight)
    inputs = [weight] if conv.bias is None else [weight, graph.parameter(f"{name}.conv.bias", conv.bias)]
    output, strides = f"{name}.conv", list(conv.stride)
    if block.upsampling == "transposed":
        pads = [block.padding_px] * 4
        return graph.add(
            "ConvTranspose", [features, *inputs], output, strides=strides, pads=pads, output_padding=[1, 1]
        )
    if block.interpolation is not None:
        features = _interpolation(graph, features, name, block.interpolation)
    features = graph.reflect(features, block.padding_px, name)
    if block.depthwise is not None:
        each = graph.parameter(f"{name}.depthwise.weight", block.depthwise.weight)
        group, stride = block.depthwise.groups, list(block.depthwise.stride)
        features = graph.add("Conv", [features, each], f"{name}.depthwise", group=group, strides=stride)
    features = graph.add("Conv", [features, *inputs], output, strides=strides)
    if block.upsampling == "shuffle":
        return graph.add("DepthToSpace", [features], f"{name}.shuffled", blocksize=2, mode="CRD")
    return features


def _interpolation(graph: _Graph, features: str, name: str, mode: str) -> str:
    scales = graph.constant("doubled", np.array([1, 1, 2, 2], np.float32))
    attributes: dict[str, object] = {"mode": _MODES[mode], "coordinate_transformation_mode": "half_pixel"}
    if mode == "nearest":
        attributes |= {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    if mode == "bicubic":
        attributes |= {"cubic_coeff_a": _BICUBIC}
    return graph.add("Resize", [features, "", scales], f"{name}.doubled", **attributes)


def _norm(graph: _Graph, features: str, name: str, norm: AnyNorm) -> str:
    weight, bias = (graph.parameter(f"{name}.{part}", getattr(norm, part)) for part in ("weight", "bias"))
    if isinstance(norm, StyleNorm):  # the mean of the styles' scales and shifts, by their weights
        weight, bias = (graph.add("MatMul", [STYLE_WEIGHTS, part], f"{part}.mixed") for part in (weight, bias))
    if isinstance(norm, nn.InstanceNorm2d | StyleNorm):
        return graph.add("InstanceNormalization", [features, weight, bias], name, epsilon=norm.eps)
    if isinstance(norm, BatchNorm):
        mean, variance = (
            graph.parameter(f"{name}.{part}", getattr(norm, f"running_{part}")) for part in ("mean", "var")
        )
        return graph.add("BatchNormalization", [features, weight, bias, mean, variance], name, epsilon=norm.eps)
    # A group norm is an instance norm whose channels are groups: ONNX's own operator differs between its versions.
    groups = norm.num_groups
    ones, zeros = (graph.constant(f"{word}{groups}", np.full(groups, value, np.float32)) for word, value in _FILLS)
    shape = graph.add("Shape", [features], f"{name}.shape")
    rows = graph.add("Reshape", [features, graph.constant(f"groups{groups}", [0, groups, -1])], f"{name}.rows")
    normal = graph.add("InstanceNormalization", [rows, ones, zeros], f"{name}.normal_rows", epsilon=norm.eps)
    normal = graph.add("Reshape", [normal, shape], f"{name}.normal")
    columns = [
        graph.add("Reshape", [part, graph.constant("column", [1, -1, 1, 1])], f"{part}.column")
        for part in (weight, bias)
    ]
    return graph.add("Add", [graph.add("Mul", [normal, columns[0]], f"{name}.scaled"), columns[1]], name)
