"""``vgg16`` and ``vgg19`` as loss networks, with the weights of a file in torchvision's layout."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from stylemill.errors import ConfigError
from stylemill.nn.cpu.frozen_conv import FrozenConv, can_be_frozen
from stylemill.nn.cpu.thread_team import ThreadTeam
from stylemill.nn.loss_networks.features import LossFeatures, measured_energies, network_digest
from stylemill.nn.loss_weights import LAYER_WEIGHTS, LayerWeights

VggName: TypeAlias = Literal["vgg16", "vgg19"]

# Convolutions before each pooling.
_BLOCKS: dict[str, tuple[int, ...]] = {"vgg16": (2, 2, 3, 3), "vgg19": (2, 2, 4, 4)}


class VggLossNetwork(nn.Module):
    """The convolutions of a VGG up to its fourth block, frozen.

    Args:
        name: ``vgg16`` or ``vgg19``.
        state_dict: torchvision's parameters; only ``features.*`` up to the fourth block are used.
        layers: what the loss compares; by default the network's entry in LAYER_WEIGHTS.
    Raises:
        KeyError, RuntimeError: a parameter is missing or has another shape.
    Source: Johnson et al. 2016, arXiv:1603.08155; Simonyan and Zisserman 2014, arXiv:1409.1556.
    """

    def __init__(self, name: VggName, state_dict: Mapping[str, Tensor], layers: LayerWeights | None = None) -> None:
        super().__init__()
        self.name: str = name
        self.layers = layers or LAYER_WEIGHTS[name]
        self.convolutions = nn.ModuleDict()
        index, in_channels = 0, 3
        for block, num_convolutions in enumerate(_BLOCKS[name], start=1):
            out_channels = 64 * 2 ** (block - 1)
            for number in range(1, num_convolutions + 1):
                layer = nn.Conv2d(in_channels, out_channels, 3, padding=1 if index else 0)
                with torch.no_grad():
                    layer.weight.copy_(state_dict[f"features.{index}.weight"])
                    layer.bias.copy_(state_dict[f"features.{index}.bias"])  # type: ignore[union-attr]
                self.convolutions[f"relu{block}_{number}"] = layer
                index, in_channels = index + 2, out_channels
            index += 1  # the pooling layer
        self.requires_grad_(False)
        self._threads = ThreadTeam(torch.get_num_threads())
        self._frozen: dict[str, FrozenConv] | None = None
        # With the plain layers: most networks are converted to bfloat16 after this.
        self.content_energies = measured_energies(self)
        self._frozen = {}

    def features(self, batch_NCHW: Tensor) -> LossFeatures:
        """Return the features of an ImageNet-normalised (N, 3, H, W) batch."""
        found = self._run(batch_NCHW, self.layers.computed)
        return LossFeatures.of(found, self.layers)

    def content(self, batch_NCHW: Tensor) -> dict[str, Tensor]:
        """Return only the content layers' activations."""
        return self._run(batch_NCHW, set(self.layers.content))

    def digest(self) -> str:
        """Return the SHA-256 of all parameters and of the layers' weights: equal digests mean equal losses."""
        return network_digest((tensor for _, tensor in sorted(self.state_dict().items())), self.layers)

    def _run(self, batch_NCHW: Tensor, wanted: set[str]) -> dict[str, Tensor]:
        """Return the wanted activations from fine to coarse, without running deeper layers."""
        found = {}
        # Zeros around the picture would be a grey frame, which networks learn to paint against with a rim.
        batch_NCHW = F.pad(batch_NCHW, (1, 1, 1, 1), mode="replicate")
        for name, layer in self.convolutions.items():
            if name.endswith("_1") and name != "relu1_1":
                batch_NCHW = F.max_pool2d(batch_NCHW, 2)
            batch_NCHW = F.relu_(self._convolve(name, layer, batch_NCHW))
            if name in wanted:
                found[name] = batch_NCHW
            if len(found) == len(wanted):
                break
        return found

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> VggLossNetwork:
        """Convert the parameters, as ``to`` does, and drop what was prepared from them."""
        self._frozen = {}
        super()._apply(fn, recurse)
        return self

    def _convolve(self, name: str, layer: nn.Module, batch_NCHW: Tensor) -> Tensor:
        if self._frozen is None or not isinstance(layer, nn.Conv2d) or not can_be_frozen(layer, batch_NCHW):
            result_NCHW: Tensor = layer(batch_NCHW)
            return result_NCHW
        if name not in self._frozen:
            self._frozen[name] = FrozenConv(layer, self._threads)
        return self._frozen[name](batch_NCHW)


def parse_vgg_weights(data: bytes, source: str) -> dict[str, Tensor]:
    """Read parameters from safetensors or from a torch file without executing pickled code.

    Raises:
        ConfigError: the bytes are not weights in either format.
    """
    try:
        return safetensors.torch.load(data)
    except SafetensorError:
        pass
    cure = "give torchvision's vgg .pth or a safetensors file of its state_dict"
    try:
        loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # on foreign bytes torch raises anything from KeyError to UnpicklingError
        raise ConfigError("loss_weights", source, "is not a file of weights", cure) from error
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ConfigError("loss_weights", source, "does not contain a state_dict", cure)
    return dict(loaded)


def used_vgg_weights(name: VggName, data: bytes, source: str) -> bytes:
    """Return only the parameters of the four blocks, as safetensors: 31 MB of torchvision's 553 MB file.

    Args:
        name: ``vgg16`` or ``vgg19``.
        data: a file of weights of this network.
        source: location of ``data``, for messages.
    """
    last = sum(_BLOCKS[name]) * 2 + len(_BLOCKS[name]) - 1  # a ReLU follows each convolution, a pooling each block
    used = {}
    for key, tensor in parse_vgg_weights(data, source).items():
        match = re.fullmatch(r"features\.(\d+)\.(weight|bias)", key)
        if match is not None and int(match[1]) < last:
            used[key] = tensor.contiguous()
    return safetensors.torch.save(used)


def build_vgg(name: VggName, data: bytes, source: str | None, layers: LayerWeights | None = None) -> VggLossNetwork:
    """Return a loss network with the given weights.

    Args:
        name: ``vgg16`` or ``vgg19``.
        data: a file of weights.
        source: location of ``data``, for messages.
        layers: what the loss compares; by default the network's entry in LAYER_WEIGHTS.
    Raises:
        ConfigError: the weights belong to another network.
    """
    try:
        return VggLossNetwork(name, parse_vgg_weights(data, source or ""), layers)
    except (KeyError, RuntimeError) as error:
        cure = f"give the weights of torchvision's {name}"
        raise ConfigError("loss_weights", source, f"does not contain the weights of {name} ({error})", cure) from error
