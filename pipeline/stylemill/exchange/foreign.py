"""Checkpoints of other implementations: the layouts of their keys, and reading one safely.

The layouts follow the sources and scripts of the four repositories; tests under ``tests/unit/exchange`` compare each
one with the arithmetic of its repository. A checkpoint may come from a stranger: ``read_checkpoint`` bounds its size
and executes nothing in it.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stylemill.errors import ConfigError
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


MAX_BYTES = 256 << 20
"""Limit of the file and of its unpacked size; the networks of the known layouts take 7 MB."""
_MAX_TEXT_LENGTH = 200
_ZIP = b"PK\x03\x04"
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_CURE = "save only its parameters, with torch.save(network.state_dict(), FILE), where its code is trusted"
_DAMAGED_CURE = "give the whole file, as torch.save wrote it"


@dataclass(frozen=True, kw_only=True)
class ForeignCheckpoint:
    """The content of a checkpoint of another implementation."""

    tensors: dict[str, Tensor]
    """Tensors by key, without the prefix that a wrapped model adds."""
    notes: dict[str, Any]
    """Text and numbers stored next to the tensors, such as settings of the training."""


def read_checkpoint(data: bytes, *, source: str) -> ForeignCheckpoint:
    """Read a checkpoint with ``weights_only``.

    Args:
        data: the whole file.
        source: location of the file, for messages.

    Raises:
        ConfigError: not a checkpoint, damaged, too large, or with more than tensors, text and numbers.
    """
    _check_size(data, source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about the version of the pickle
            loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = _GLOBAL.search(str(error))
        if wanted is None:
            raise _unreadable(source, error) from error
        reason = f"needs {wanted[1]}, but only tensors, text and numbers are loaded: a pickle can run any code"
        raise ConfigError("from", source, reason, _CURE) from error
    except (
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        AssertionError,
    ) as error:
        raise _unreadable(source, error) from error
    except (OverflowError, MemoryError, RecursionError, ImportError, struct.error) as error:
        raise _unreadable(source, error) from error
    return _unwrap(loaded, source)


def _check_size(data: bytes, source: str) -> None:
    unpacked = len(data)
    if data.startswith(_ZIP):
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                unpacked = sum(member.file_size for member in archive.infolist())
        except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
            raise _unreadable(source, error) from error
    if max(unpacked, len(data)) > MAX_BYTES:
        problem = f"has {max(unpacked, len(data)) / 2**20:,.0f} MiB, more than any style network"
        raise ConfigError("from", source, problem, f"give a file of at most {MAX_BYTES >> 20} MiB")


def _unreadable(source: str, error: BaseException) -> ConfigError:
    # The message of weights_only advises to turn it off.
    reason = "its pickle cannot be read" if isinstance(error, pickle.UnpicklingError) else str(error).strip()
    reason = (reason or type(error).__name__).splitlines()[0][:_MAX_TEXT_LENGTH]
    return ConfigError("from", source, f"is not a checkpoint, or is damaged ({reason})", _DAMAGED_CURE)


def _is_not_finite(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _unwrap(loaded: object, source: str) -> ForeignCheckpoint:
    """Return the tensors and notes of a loaded object that is a state dict or has a ``state_dict``."""
    outer: Mapping[Any, Any] = loaded if isinstance(loaded, Mapping) else {}
    inner = outer.get("state_dict", outer)
    found = inner if isinstance(inner, Mapping) else {}
    tensors = {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
    if not tensors or len(tensors) < len(found):
        held = f"a {type(loaded).__name__}" if not outer else f"the keys {', '.join(map(str, list(outer)[:5]))}"
        raise ConfigError("from", source, f"holds {held} instead of a state dict", _CURE)
    if all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): tensor for key, tensor in tensors.items()}
    notes = {
        str(key)[:_MAX_TEXT_LENGTH]: value[:_MAX_TEXT_LENGTH] if isinstance(value, str) else value
        for key, value in outer.items()
        if inner is not outer and isinstance(value, str | int | float | bool) and not _is_not_finite(value)
    }
    return ForeignCheckpoint(tensors=tensors, notes=notes)
