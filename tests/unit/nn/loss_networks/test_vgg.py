from __future__ import annotations

import functools
import io

import pytest
import safetensors.torch
import torch

from stylemill.errors import ConfigError
from stylemill.nn.loss_networks import build_loss_network
from stylemill.nn.loss_networks.vgg import VggLossNetwork, parse_vgg_weights
from stylemill.nn.loss_weights import LayerWeights

# Convolutions of torchvision's feature extractor up to relu4_3 and relu4_4: index -> (out, in).
LAYERS = {
    "vgg16": {0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128), 12: (256, 256), 14: (256, 256),
              17: (512, 256), 19: (512, 512), 21: (512, 512)},
    "vgg19": {0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128), 12: (256, 256), 14: (256, 256),
              16: (256, 256), 19: (512, 256), 21: (512, 512), 23: (512, 512), 25: (512, 512)},
}  # fmt: skip
CONTENT_END, STYLE_ENDS = 9, {"vgg16": (2, 4, 9, 16, 23), "vgg19": (2, 4, 9, 18, 27)}


def random_weights(name: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    weights = {}
    for index, (out_channels, in_channels) in LAYERS[name].items():
        scale = (2 / (9 * in_channels)) ** 0.5
        weights[f"features.{index}.weight"] = torch.randn(out_channels, in_channels, 3, 3, generator=generator) * scale
        weights[f"features.{index}.bias"] = torch.randn(out_channels, generator=generator) * 0.1
    return weights


@pytest.fixture(scope="module")
def weights():
    return {name: random_weights(name) for name in LAYERS}


@pytest.fixture(scope="module")
def networks(weights):
    """Shared by all tests, because the calibration takes most of the time of a construction."""
    return {name: VggLossNetwork(name, weights[name]) for name in LAYERS}


@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_layers_are_those_of_torchvision(name, weights, networks):
    torchvision = pytest.importorskip("torchvision")
    with torch.device("meta"):  # without memory for torchvision's classifier, which takes seconds to initialise
        reference = getattr(torchvision.models, name)(weights=None).features[: STYLE_ENDS[name][-1]].eval()
    parameters = {key.removeprefix("features."): value for key, value in weights[name].items()}
    reference.load_state_dict(parameters, assign=True)
    batch_NCHW = torch.randn(1, 3, 48, 40, generator=torch.Generator().manual_seed(2))
    network = networks[name]
    features = network.features(batch_NCHW)
    # Only the first layer differs: it repeats the border pixels where torchvision's sees zeros.
    padded_NCHW = torch.nn.functional.pad(batch_NCHW, (1, 1, 1, 1), mode="replicate")
    reference[0].padding = (0, 0)
    with torch.no_grad():
        # Not to the last digits: most layers run Winograd's algorithm.
        close = functools.partial(torch.testing.assert_close, rtol=1e-4, atol=2e-4)
        for end, layer in zip(STYLE_ENDS[name], features.style.values(), strict=True):
            close(layer, reference[:end](padded_NCHW))
        close(features.content["relu2_2"], reference[:CONTENT_END](padded_NCHW))
    assert torch.equal(network.content(batch_NCHW)["relu2_2"], features.content["relu2_2"])


def test_the_border_of_a_flat_picture_looks_like_its_inside(networks):
    layer_NCHW = networks["vgg16"]._run(torch.full((1, 3, 32, 32), 0.7), {"relu1_1"})["relu1_1"]
    torch.testing.assert_close(layer_NCHW, layer_NCHW[:, :, 15:16, 15:16].expand_as(layer_NCHW))


def test_chosen_layers_are_returned_without_running_deeper_ones(weights):
    layers = LayerWeights(content={"relu1_1": 1.0, "relu2_1": 1.0}, style={"relu1_2": 2.0, "relu3_1": 1.0})
    network = VggLossNetwork("vgg16", weights["vgg16"], layers)
    features = network.features(torch.zeros(1, 3, 32, 32))
    assert [list(features.content), list(features.style)] == [["relu1_1", "relu2_1"], ["relu1_2", "relu3_1"]]
    assert set(network.content_energies) == {"relu1_1", "relu2_1"}
    assert network.digest() != VggLossNetwork("vgg16", weights["vgg16"]).digest()
    del network.convolutions["relu3_2"]  # what is deeper is not run
    network.features(torch.zeros(1, 3, 32, 32))


def test_frozen_and_identified_by_its_weights(weights, networks):
    network = networks["vgg16"]
    assert not any(parameter.requires_grad for parameter in network.parameters())
    other = dict(weights["vgg16"], **{"features.0.bias": torch.zeros(64)})
    assert network.digest() != VggLossNetwork("vgg16", other).digest()
    assert network.content_energies["relu2_2"] > 0


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_weights_come_from_either_kind_of_file(kind, weights, networks):
    buffer = io.BytesIO()
    torch.save(weights["vgg16"], buffer)
    data = buffer.getvalue() if kind == "pth" else safetensors.torch.save(weights["vgg16"])
    network = build_loss_network("vgg16", weights=data, source="w")
    assert network.digest() == networks["vgg16"].digest()


class Exploit:
    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize("content", [Exploit(), [1, 2], {"features.0.weight": 3}])
def test_files_that_hold_something_else_are_refused_and_not_executed(content, capsys):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with pytest.raises(ConfigError, match=r"loss_weights='w\.pth'"):
        parse_vgg_weights(buffer.getvalue(), "w.pth")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("data", [b"", b"not weights", b"\x80\x02."])
def test_foreign_bytes_are_refused(data):
    with pytest.raises(ConfigError, match="is not a file of weights"):
        parse_vgg_weights(data, "w")


def test_weights_of_another_network_are_refused(weights):
    data = safetensors.torch.save(weights["vgg16"])
    with pytest.raises(ConfigError, match="does not contain the weights of vgg19"):
        build_loss_network("vgg19", weights=data, source="w")
    shapes = dict(weights["vgg16"], **{"features.2.weight": torch.zeros(64, 32, 3, 3)})
    with pytest.raises(ConfigError, match="does not contain the weights of vgg16"):
        build_loss_network("vgg16", weights=safetensors.torch.save(shapes), source="w")
