"""``StyleModel``: the trained weights of one style, and the network to paint with them.

``style_file.py`` has the format of the file.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, overload

from stylemill.builtin import model_location
from stylemill.errors import ConfigError
from stylemill.style_file import CURE, OWN_PARTS, ByteStore, encode, of_another_version, read_header, read_style

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image
    from torch import Tensor

    from stylemill.nn.architecture import Architecture
    from stylemill.nn.fast_net import FastNet
    from stylemill.nn.transformer_net import TransformerNet
    from stylemill.painting.options import PaintOptions
    from stylemill.painting.painter import ImagePainter
    from stylemill.storage.options import StorageOptions


@dataclass(frozen=True, kw_only=True, eq=False)
class StyleModel:
    """Trained weights of one style with architecture and history, and the network to paint with them.

    ``model = StyleModel.load("style.safetensors"); model.paint("photo.jpg").save("painted.jpg")``
    """

    name: str
    """Name of the style."""
    version: str
    """Version of the style: each training of a style gives another version."""
    architecture: Architecture
    """Architecture of the network that the weights belong to."""
    state_dict: dict[str, Tensor] = field(repr=False)
    """Parameters and buffers of a ``TransformerNet``, on the CPU."""
    metadata: dict[str, Any] = field(repr=False)
    """JSON-able history and properties of the model; unknown keys survive a round trip."""
    sha256: str = ""
    """Hex digest of the file's bytes; empty until the model was saved or loaded."""

    @classmethod
    def load(cls, uri: str | os.PathLike[str], *, storage: StorageOptions | None = None) -> StyleModel:
        """Read a model.

        Args:
            uri: a path, a URI such as ``s3://bucket/style.safetensors``, either with ``#STYLE`` if it holds several, or
                ``builtin#STYLE``.
            storage: endpoint, region and profile of an object store.
        Raises:
            ConfigError: there is no object at the location, or it is not a style model.
            StorageError: the storage failed beyond its retries.
        """
        import os

        from stylemill.storage import Storage

        return load_style_model(Storage(storage), model_location(os.fspath(uri)))

    def save(self, uri: str | os.PathLike[str], *, storage: StorageOptions | None = None) -> StyleModel:
        """Write the model in one step and return it with the digest of the written bytes.

        Args:
            uri: a path or a URI; what is there is replaced.
            storage: endpoint, region and profile of an object store.
        Raises:
            StorageError: it cannot be written.
        """
        import os

        from stylemill.storage import Storage

        return save_style_model(Storage(storage), os.fspath(uri), self)

    @overload
    def paint(
        self,
        image: NDArray[np.uint8],
        *,
        strength: float = ...,
        preserve_color: bool = ...,
        max_size_px: int | None = ...,
        texture_scale: float = ...,
        precision: Literal["auto", "float32", "bfloat16"] = ...,
        device: Literal["cpu", "cuda"] = ...,
        max_memory: str = ...,
    ) -> NDArray[np.uint8]: ...

    @overload
    def paint(
        self,
        image: str | os.PathLike[str] | bytes | Image.Image,
        *,
        strength: float = ...,
        preserve_color: bool = ...,
        max_size_px: int | None = ...,
        texture_scale: float = ...,
        precision: Literal["auto", "float32", "bfloat16"] = ...,
        device: Literal["cpu", "cuda"] = ...,
        max_memory: str = ...,
    ) -> Image.Image: ...

    def paint(
        self,
        image: str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8],
        *,
        strength: float = 1.0,
        preserve_color: bool = False,
        max_size_px: int | None = None,
        texture_scale: float = 1.0,
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
        device: Literal["cpu", "cuda"] = "cpu",
        max_memory: str = "2GiB",
    ) -> Image.Image | NDArray[np.uint8]:
        """Paint a picture in this style; the pixels are those of a bulk run before encoding.

        The network is prepared at the first call and kept. Files are decoded in a child process.

        Args:
            image: a path or URI, the bytes of a file, a Pillow image, or an array: (H, W), (H, W, 1), (H, W, 3) or
                (H, W, 4) uint8 sRGB. Of an animation the first frame is painted. A Pillow image without an ICC profile
                is taken as sRGB: what else its file says of colour (gAMA, cICP, nclx) is applied to paths and bytes.
            strength: from 0 (the source) to 1 (the full style).
            preserve_color: keep the source's colours.
            max_size_px: longest side of the result in pixels; larger sources are scaled down first.
            texture_scale: size of the strokes; 2 makes them twice as large.
            precision: arithmetic of the network; auto uses bfloat16 where the hardware supports it natively.
            device: where the network runs.
            max_memory: memory that this process may use; larger images are painted in tiles.
        Returns:
            For an array an array, (H, W, 3) uint8, or (H, W, 4) if it has alpha; else an RGB or RGBA image.
        Raises:
            ImageError: the picture cannot be read, decoded or painted.
            ConfigError: a setting is out of range, or this machine does not have the precision or the device.
            ValueError: the array has another shape or dtype.
        """
        import numpy as np
        from PIL import Image

        from stylemill.painting.options import PaintOptions
        from stylemill.painting.pictures import to_array, to_source

        options = PaintOptions(
            strength=strength,
            preserve_color=preserve_color,
            max_size_px=max_size_px,
            texture_scale=texture_scale,
            precision=precision,
            device=device,
            max_memory=max_memory,
        )
        source = to_source(image)
        (painted_HWC,), _ = self.painter(options).paint([source.image_HWC])
        result = to_array(painted_HWC, source)
        return result if isinstance(image, np.ndarray) else Image.fromarray(result)

    def painter(self, options: PaintOptions) -> ImagePainter:
        """Return what paints in this style with these options; the network is prepared once and kept.

        Raises:
            ConfigError: this machine does not have the precision or the device.
        """
        from stylemill.painting.painter import ImagePainter

        return ImagePainter(self._net(options.precision, options.device), options)

    def _net(self, precision: str, device: str) -> FastNet:
        if (precision, device) not in self._nets:
            import torch

            from stylemill.machines import this_machine
            from stylemill.nn.fast_net import FastNet

            # Torch starts a thread for each processor of the machine, also in a container that may use few of them.
            threads = min(torch.get_num_threads(), int(this_machine()["CPU"]))
            net = FastNet(self.build_network(), precision=precision, device=device, num_threads=threads)
            self._nets[precision, device] = net
        return self._nets[precision, device]

    @cached_property
    def _nets(self) -> dict[tuple[str, str], FastNet]:
        """Prepared networks by precision and device."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_nets"}

    def build_network(self) -> TransformerNet:
        """Return a network in eval mode with its own float32 copy of the weights."""
        import torch

        from stylemill.nn.transformer_net import TransformerNet

        with torch.device("meta"):  # draws no random weights and allocates no memory
            network = TransformerNet(self.architecture)
        weights = {key: tensor.detach().to(torch.float32, copy=True) for key, tensor in self.state_dict.items()}
        network.load_state_dict(weights, assign=True)
        return network.eval()


def shared_network(models: Sequence[StyleModel]) -> TransformerNet:
    """Return one network of several styles, in their order, in eval mode with its own float32 copy of the weights.

    Args:
        models: at least two, with equal convolutions.
    """
    import torch

    from stylemill.nn.transformer_net import TransformerNet

    with torch.device("meta"):
        network = TransformerNet(models[0].architecture, num_styles=len(models))
    weights = {
        key: torch.stack([model.state_dict[key] for model in models]).float()
        if OWN_PARTS in key
        else tensor.detach().to(torch.float32, copy=True)
        for key, tensor in models[0].state_dict.items()
    }
    network.load_state_dict(weights, assign=True)
    return network.eval()


def to_bytes(model: StyleModel) -> bytes:
    """Serialise a model; equal models give equal bytes, whatever their ``sha256`` field holds."""
    import safetensors.torch

    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict.items()}
    return encode(
        safetensors.torch.save(tensors),
        name=model.name,
        version=model.version,
        architecture=model.architecture.to_mapping(),
        metadata=model.metadata,
    )


def from_bytes(data: bytes, *, source: str) -> StyleModel:
    """Read a style model.

    Args:
        data: the whole file.
        source: where the bytes came from, for messages.
    Raises:
        ConfigError: the bytes are not a style model, or the weights do not fit the architecture or are not finite.
    """
    import safetensors.torch
    from safetensors import SafetensorError

    from stylemill.nn.architecture import Architecture

    header = read_header(data, source=source)
    try:
        architecture = Architecture.from_mapping(header.architecture)
        state_dict = safetensors.torch.load(data)
    except (SafetensorError, TypeError, ValueError) as error:
        if "newer stylemill" in str(error):
            raise of_another_version(source, str(error).partition(";")[0]) from error
        raise ConfigError("model", source, f"is a damaged style model ({error})", CURE) from error
    problem = _weights_problem(architecture, state_dict)
    if problem:
        raise ConfigError("model", source, f"is a damaged style model ({problem})", CURE)
    return StyleModel(
        name=header.name,
        version=header.version,
        architecture=architecture,
        state_dict=state_dict,
        metadata=header.metadata,
        sha256=header.sha256,
    )


def save_style_model(storage: ByteStore, uri: str, model: StyleModel) -> StyleModel:
    """Write a model atomically and return it with the digest of the written bytes."""
    data = to_bytes(model)
    storage.write_bytes(uri, data)
    return replace(model, sha256=hashlib.sha256(data).hexdigest())


def load_style_model(storage: ByteStore, uri: str) -> StyleModel:
    """Read a model from any location, or one style of a file of several (``FILE#STYLE``).

    Raises:
        ConfigError: there is no object at the location, or it is not a style model, or holds several.
        StorageError: the storage failed beyond its retries.
    """
    return from_bytes(read_style(storage, uri), source=uri)


def _weights_problem(architecture: Architecture, state_dict: Mapping[str, Tensor]) -> str | None:
    """Return why the weights do not fit the architecture or are not finite, or None."""
    import torch

    from stylemill.nn.transformer_net import TransformerNet

    with torch.device("meta"):
        expected = TransformerNet(architecture).state_dict()
    if expected.keys() != state_dict.keys():
        names = sorted(expected.keys() ^ state_dict.keys())
        return f"{len(names)} parameters are missing or unexpected, such as {names[0]}"
    for key, tensor in state_dict.items():
        if tensor.shape != expected[key].shape:
            return f"{key} has shape {tuple(tensor.shape)} instead of {tuple(expected[key].shape)}"
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            return f"{key} holds values that are not finite floats"
    return None
