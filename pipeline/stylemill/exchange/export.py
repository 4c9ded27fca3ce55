"""Export of a style model to the formats of other programs.

Every exported file is read back and painted with before it is returned, and must paint what the network paints.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stylemill.errors import ConfigError, StylemillError
from stylemill.exchange.convert import convert, with_raw_pixels
from stylemill.exchange.foreign import PYTORCH_EXAMPLES
from stylemill.nn.architecture import IMAGENET_MEAN, IMAGENET_STD, RAW, Architecture
from stylemill.nn.pixels import normalize, pad_to_network
from stylemill.nn.transformer_net import TransformerNet
from stylemill.style_model import StyleModel, from_bytes, shared_network, to_bytes

Format = Literal["onnx", "torchscript", "safetensors", "pt-examples"]

SUFFIXES: Mapping[str, str] = {
    "onnx": ".onnx",
    "torchscript": ".pt",
    "safetensors": ".safetensors",
    "pt-examples": ".pth",
}
TOLERANCE = 0.25
"""Largest difference, in levels of 0 to 255, between an exported model and the network that it came from."""
_INTERFACE = "pixels (N, 3, H, W) float32 of 0 to 255, red first, in and out; any N, H and W"
_Picture = NDArray[np.uint8]
_Levels = NDArray[np.float32]
_TRIAL_SIDES_PX = (61, 94)
"""Neither is a multiple of 4."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """An exported file."""

    data: bytes
    description: str
    """One sentence about its input and output."""
    difference: float
    """Largest difference from the network on a generated picture, in levels of 0 to 255."""


def check_format(to: Format) -> None:
    """Raise ConfigError if a package that a format needs is not installed."""
    if to != "onnx":
        return
    for package in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            problem = f"needs the package {package}, which is not installed"
            raise ConfigError("to", to, problem, "pip install 'stylemill[onnx]'")


def export(model: StyleModel, to: Format) -> Exported:
    """Convert a style model to another format, read it back and check what it paints.

    Raises:
        ConfigError: the format cannot represent this network, or a package is not installed.
        StylemillError: the exported model does not paint what the network paints.
    """
    check_format(to)
    plain = model.build_network()
    try:
        net = with_raw_pixels(plain)
    except ValueError as error:
        raise ConfigError(
            "to", to, f"cannot represent this network: {error}", "use the style model as it is"
        ) from error
    data, description = _WRITERS[to](model, net)
    trial_HWC = _trial_picture()
    difference = _checked(float(np.abs(_READERS[to](data, trial_HWC) - _paint(plain, trial_HWC)).max()))
    return Exported(data=data, description=description, difference=difference)


def export_together(models: Sequence[StyleModel]) -> Exported:
    """Convert the styles of one network to one ONNX file, whose second input gives the weight of each style.

    Args:
        models: at least two, with equal convolutions.
    Raises:
        ConfigError: ONNX cannot represent this network, or a package is not installed.
        StylemillError: the exported model does not paint what the network paints.
    """
    from stylemill.exchange.onnx_graph import OPSET, STYLE_WEIGHTS, to_onnx

    check_format("onnx")
    try:
        net = with_raw_pixels(shared_network(models))
    except ValueError as error:
        problem = f"cannot represent this network: {error}"
        raise ConfigError("to", "onnx", problem, "export one style: FILE#STYLE") from error
    names = [model.name for model in models]
    metadata = _metadata(models[0]) | {
        "opset": str(OPSET),
        "style": ",".join(names),
        "version": ",".join(model.version for model in models),
        "style_model_sha256": ",".join(model.sha256 for model in models),
        STYLE_WEIGHTS: "(S,) float32, the share of each style in the order of `style`; they should sum to 1",
    }
    data = to_onnx(net, metadata)
    trial_HWC, weights_SS = _trial_picture(), np.eye(len(models), dtype=np.float32)
    differences = [
        np.abs(_read_onnx(data, trial_HWC, weights_S) - _paint(model.build_network(), trial_HWC)).max()
        for model, weights_S in zip(models, weights_SS, strict=True)
    ]
    difference = _checked(float(max(differences)))
    description = f"opset {OPSET}; {_INTERFACE}; {STYLE_WEIGHTS} ({len(models)},) float32: {', '.join(names)}"
    return Exported(data=data, description=description, difference=difference)


def _checked(difference: float) -> float:
    if not difference <= TOLERANCE:
        raise StylemillError(
            f"the exported model differs from the network by up to {difference:.2f} of 255 levels and is not written;"
            " please report it, with the style model"
        )
    return difference


def _onnx(model: StyleModel, net: TransformerNet) -> tuple[bytes, str]:
    from stylemill.exchange.onnx_graph import OPSET, to_onnx

    return to_onnx(net, _metadata(model) | {"opset": str(OPSET)}), f"opset {OPSET}; {_INTERFACE}"


def _torchscript(model: StyleModel, net: TransformerNet) -> tuple[bytes, str]:
    from stylemill.exchange.torchscript import to_torchscript

    return to_torchscript(
        net, _metadata(model) | {"torch": torch.__version__}
    ), f"torch {torch.__version__}; {_INTERFACE}"


def _safetensors(model: StyleModel, net: TransformerNet) -> tuple[bytes, str]:
    metadata = {**model.metadata, "exported_from_sha256": model.sha256}
    raw = replace(model, architecture=net.architecture, state_dict=dict(net.state_dict()), metadata=metadata)
    return to_bytes(raw), "parameters for levels of 0 to 255, red first, in and out; a style model like any other"


def _pt_examples(_: StyleModel, net: TransformerNet) -> tuple[bytes, str]:
    wanted = Architecture(pixels=RAW)
    for field in fields(Architecture):
        held, known = (getattr(architecture, field.name) for architecture in (net.architecture, wanted))
        if held != known:
            problem = (
                f"cannot represent this network: its {field.name} is {held}, {PYTORCH_EXAMPLES.name} has only {known}"
            )
            raise ConfigError("to", "pt-examples", problem, "use onnx or torchscript")
    ours, buffer = net.state_dict(), io.BytesIO()
    torch.save({theirs: ours[key] for key, theirs in PYTORCH_EXAMPLES.keys.items()}, buffer)
    return buffer.getvalue(), f"a checkpoint for {PYTORCH_EXAMPLES.name}: levels of 0 to 255, red first, in and out"


def _metadata(model: StyleModel) -> dict[str, str]:
    return {
        "style": model.name,
        "version": model.version,
        "style_model_sha256": model.sha256,
        "input": "pixels: (N, 3, H, W) float32 levels of 0 to 255, red first; sides from 9 px",
        "output": "painted: the same shape and scale, clamped, not rounded",
        "padding": "sides are reflected up to a multiple of 4 and at least 16 px, and cropped again",
    }


def _trial_picture() -> _Picture:
    """Return an (H, W, 3) uint8 picture with gradients, edges and noise."""
    rows, columns = _TRIAL_SIDES_PX
    y, x = np.mgrid[:rows, :columns] / 17.0
    waves = [np.sin(x + 2 * y), np.cos(3 * x - y) * np.sin(y), np.sign(np.sin(x * y / 3))]
    grain = np.random.default_rng(0).normal(0, 8, (rows, columns, 3))
    return (127.5 + 110 * np.stack(waves, axis=-1) + grain).clip(0, 255).astype(np.uint8)


@torch.inference_mode()
def _paint(net: TransformerNet, image_HWC: _Picture) -> _Levels:
    """Return the output of the PyTorch network as clamped levels."""
    normal_NCHW = net(normalize(torch.from_numpy(pad_to_network(image_HWC).copy())[None]))
    std, mean = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_STD, IMAGENET_MEAN))
    levels_CHW = (normal_NCHW * std + mean)[0].mul_(255).clamp_(0, 255)
    height, width = image_HWC.shape[:2]
    return levels_CHW.permute(1, 2, 0)[:height, :width].numpy()


def _read_onnx(data: bytes, image_HWC: _Picture, weights_S: _Levels | None = None) -> _Levels:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # more threads spin while they wait for each other
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    pixels_NCHW = image_HWC.transpose(2, 0, 1)[None].astype(np.float32)
    inputs = {"pixels": pixels_NCHW} if weights_S is None else {"pixels": pixels_NCHW, "style_weights": weights_S}
    painted_NCHW: _Levels = session.run(["painted"], inputs)[0]
    return painted_NCHW[0].transpose(1, 2, 0)


@torch.inference_mode()
def _read_torchscript(data: bytes, image_HWC: _Picture) -> _Levels:
    from stylemill.exchange.torchscript import load_torchscript

    painted_NCHW: Tensor = load_torchscript(data)(torch.from_numpy(image_HWC.copy()).permute(2, 0, 1)[None].float())
    return painted_NCHW[0].permute(1, 2, 0).numpy()


def _read_safetensors(data: bytes, image_HWC: _Picture) -> _Levels:
    return _paint(from_bytes(data, source="the exported file").build_network(), image_HWC)


def _read_pt_examples(data: bytes, image_HWC: _Picture) -> _Levels:
    return _paint(convert(data, source="the exported file", name="exported").build_network(), image_HWC)


_WRITERS: Mapping[Format, Callable[[StyleModel, TransformerNet], tuple[bytes, str]]] = {
    "onnx": _onnx,
    "torchscript": _torchscript,
    "safetensors": _safetensors,
    "pt-examples": _pt_examples,
}
_READERS: Mapping[Format, Callable[[bytes, _Picture], _Levels]] = {
    "onnx": _read_onnx,
    "torchscript": _read_torchscript,
    "safetensors": _read_safetensors,
    "pt-examples": _read_pt_examples,
}
