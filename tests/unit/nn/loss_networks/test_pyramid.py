from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch

from stylemill.nn.loss_networks import build_loss_network
from stylemill.nn.loss_networks.features import calibration_images
from stylemill.nn.loss_networks.pyramid import NUM_FILTERS, NUM_LEVELS, PyramidLossNetwork, _halved
from stylemill.nn.loss_weights import LayerWeights


@pytest.fixture(scope="module")
def network():
    return PyramidLossNetwork()


@pytest.fixture(scope="module")
def drawn_NCHW():
    return torch.from_numpy(calibration_images()).float()


def test_calibration_images_have_the_moments_of_normalised_photographs():
    images_NCHW = calibration_images()
    assert images_NCHW.mean(axis=(0, 2, 3)) == pytest.approx([0, 0, 0], abs=1e-12)
    assert images_NCHW.std(axis=(0, 2, 3)) == pytest.approx([1, 1, 1])


def test_every_filter_of_every_level_is_calibrated(network, drawn_NCHW):
    for level in range(NUM_LEVELS):
        responses = torch.nn.functional.conv2d(drawn_NCHW, network.weights_LOIHW[level], network.biases_LO[level])
        # Parameters are rounded to 2^-12, over 147 taps.
        torch.testing.assert_close(responses.mean(dim=(0, 2, 3)), torch.zeros(NUM_FILTERS), atol=5e-3, rtol=0)
        torch.testing.assert_close(responses.std(dim=(0, 2, 3)), torch.ones(NUM_FILTERS), atol=5e-3, rtol=0)
        drawn_NCHW = _halved(drawn_NCHW)


def test_features_halve_from_level_to_level(network):
    features = network.features(torch.zeros(2, 3, 68, 96))
    assert [tuple(layer.shape) for layer in features.style.values()] == [
        (2, 64, 68, 96), (2, 64, 34, 48), (2, 64, 17, 24), (2, 64, 8, 12), (2, 64, 4, 6),
    ]  # fmt: skip


@pytest.mark.parametrize("axis", [2, 3])
def test_fine_lines_are_no_strokes_one_level_down(network, axis):
    def seen(period_px: float) -> float:
        """Return what lines change at the second level."""
        ramp = torch.arange(96.0).reshape([-1 if dim == axis else 1 for dim in range(4)])
        lines_NCHW = torch.cos(2 * math.pi * ramp / period_px).expand(1, 3, 96, 96)
        level_NCHW = network.features(lines_NCHW).style["level1"]
        flat_NCHW = network.features(torch.zeros(1, 3, 96, 96)).style["level1"]
        return float((level_NCHW - flat_NCHW).square().mean())

    # Both have a period of 4 px there. Networks draw the first ones all over the picture if they are seen.
    assert seen(8 / 3) < 0.01 * seen(8)


def test_content_alone_is_the_same_as_with_everything(network, drawn_NCHW):
    features = network.features(drawn_NCHW)
    assert torch.equal(network.content(drawn_NCHW)["level1"], features.content["level1"])
    assert features.content["level1"] is features.style["level1"]
    assert network.content_energies == {"level1": pytest.approx(features.content["level1"].square().mean().item())}


def test_only_the_chosen_levels_are_returned():
    network = PyramidLossNetwork(LayerWeights(content={"level0": 1.0, "level2": 2.0}, style={"level3": 1.0}))
    features = network.features(torch.zeros(1, 3, 64, 64))
    assert [list(features.content), list(features.style)] == [["level0", "level2"], ["level3"]]
    assert list(network.content(torch.zeros(1, 3, 64, 64))) == ["level0", "level2"]
    assert network.digest() != PyramidLossNetwork().digest()


def test_small_images_leave_out_the_deepest_levels_and_tiny_ones_are_refused(network):
    assert len(network.features(torch.zeros(1, 3, 32, 40)).style) == 4
    with pytest.raises(ValueError, match="7 px are too few"):
        network.features(torch.zeros(1, 3, 7, 40))
    with pytest.raises(ValueError, match="7 px are too few"):
        network.content(torch.zeros(1, 3, 7, 40))


def test_digest_is_the_same_everywhere(network):
    # Recorded once; a change of this value changes every style that will be trained.
    assert network.digest() == "156127065ce28e03f033e738c3d83718ff56ccfd87ba0e2cf24635baaf4fca28"
    code = (
        "import torch; torch.set_num_threads(1); torch.manual_seed(9);"
        "from stylemill.nn.loss_networks.pyramid import PyramidLossNetwork; print(PyramidLossNetwork().digest())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == network.digest()


def test_building_draws_nothing_from_the_global_generator():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert build_loss_network("pyramid").name == "pyramid"
    assert torch.equal(torch.get_rng_state(), before)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="resnet"):
        build_loss_network("resnet")
