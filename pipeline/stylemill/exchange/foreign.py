"""The checkpoints that other implementations write: what their keys are called, and what they mean.

Learned from the sources and scripts of the four repositories; each test under ``tests/unit/exchange`` holds one of them
against that layout's own arithmetic.

Tensors out of a file that a stranger wrote with ``torch.save``: bounded, and without running any of it.
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
"""What an instance norm of torch 0.3 saved; today's script of pytorch/examples deletes it."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One implementation's network."""

    name: str
    """Where it comes from."""
    modules: Mapping[str, str]
    """Our name of each convolution and norm -> theirs."""
    upsampling: Upsampling
    pixels: PixelConvention
    ignored: re.Pattern[str] | None = None
    """Keys that may be there and mean nothing."""
    may_end_in_tanh: bool = False
    """A variant with the same keys ends in a scaled tanh."""

    @property
    def keys(self) -> dict[str, str]:
        """Our key of each parameter -> theirs."""
        return {f"{ours}.{part}": f"{theirs}.{part}" for ours, theirs in self.modules.items() for part in _PARTS}


def _named_by_kind(up: str, up_convolution: str) -> dict[str, str]:
    """Return the modules of pytorch/examples and of what follows its naming."""
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
    """Return the modules of eriklindernoren's network: one sequence."""
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
    """Return the modules of rrmina's network."""
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
    """Return the layout that shares most keys with a checkpoint, and the keys in which they differ."""

    def differences() -> Iterator[tuple[int, Layout, set[str]]]:
        for layout in LAYOUTS:
            meant = {key for key in keys if layout.ignored is None or not layout.ignored.fullmatch(key)}
            differing = meant ^ set(layout.keys.values())
            yield len(differing), layout, differing

    _, layout, differing = min(differences(), key=lambda found: found[0])
    return layout, differing


MAX_BYTES = 256 << 20
"""Of the file, and of what it unpacks to; the networks that are known here take 7 MB."""
_TEXT_KEPT = 200
_ZIP = b"PK\x03\x04"
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_CURE = "save its parameters alone, with torch.save(network.state_dict(), FILE), where its code is trusted"
_DAMAGED = "give the whole file, as torch.save wrote it"


@dataclass(frozen=True, kw_only=True)
class ForeignCheckpoint:
    """What a checkpoint of another implementation holds."""

    tensors: dict[str, Tensor]
    """By key, without the prefix that a wrapped model adds."""
    notes: dict[str, Any]
    """Words and numbers beside the tensors: how it was trained, if it says so."""


def read_checkpoint(data: bytes, *, source: str) -> ForeignCheckpoint:
    """Read a checkpoint with ``weights_only``.

    Args:
        data: the whole file.
        source: where it came from, for messages.

    Raises:
        ConfigError: not a checkpoint, damaged, too large, or more than tensors, words and numbers.
    """
    _check_size(data, source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about the pickle's version: it is read, or refused below
            loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = _GLOBAL.search(str(error))
        if wanted is None:
            raise _unreadable(source, error) from error
        reason = f"needs {wanted[1]}, and only tensors, words and numbers are loaded: a pickle can run any code"
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
        problem = f"holds {max(unpacked, len(data)) / 2**20:,.0f} MiB, more than any style network"
        raise ConfigError("from", source, problem, f"give a file of at most {MAX_BYTES >> 20} MiB")


def _unreadable(source: str, error: BaseException) -> ConfigError:
    # What weights_only adds of its own is advice to do without it.
    reason = "its pickle cannot be read" if isinstance(error, pickle.UnpicklingError) else str(error).strip()
    reason = (reason or type(error).__name__).splitlines()[0][:_TEXT_KEPT]
    return ConfigError("from", source, f"is no checkpoint, or a damaged one ({reason})", _DAMAGED)


def _is_no_json(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _unwrap(loaded: object, source: str) -> ForeignCheckpoint:
    """Find the tensors: the object itself, or its ``state_dict``."""
    outer: Mapping[Any, Any] = loaded if isinstance(loaded, Mapping) else {}
    inner = outer.get("state_dict", outer)
    found = inner if isinstance(inner, Mapping) else {}
    tensors = {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
    if not tensors or len(tensors) < len(found):
        held = f"a {type(loaded).__name__}" if not outer else f"the keys {', '.join(map(str, list(outer)[:5]))}"
        raise ConfigError("from", source, f"holds no state dict but {held}", _CURE)
    if all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): tensor for key, tensor in tensors.items()}
    notes = {
        str(key)[:_TEXT_KEPT]: value[:_TEXT_KEPT] if isinstance(value, str) else value
        for key, value in outer.items()
        if inner is not outer and isinstance(value, str | int | float | bool) and not _is_no_json(value)
    }
    return ForeignCheckpoint(tensors=tensors, notes=notes)
