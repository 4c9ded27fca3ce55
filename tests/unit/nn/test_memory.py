from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stylemill.nn.memory import choose_forward, plan_tiled, tiled_bytes, tiled_peak_bytes, whole_bytes
from stylemill.nn.transformer_net import Architecture

ROOT = Path(__file__).resolve().parents[3]
FULL = Architecture()
GIB = 1 << 30


def test_small_images_go_whole_and_large_ones_tiled():
    small = choose_forward((512, 512), FULL, "bfloat16", max_memory_bytes=5 * GIB)
    large = choose_forward((10_000, 10_000), FULL, "bfloat16", max_memory_bytes=5 * GIB)
    assert small.forward == "whole" and small.scratch_bytes == 0
    assert large.forward == "tiled" and large.peak_bytes <= 5 * GIB


def test_a_batch_is_chosen_where_it_fits_and_shrinks_to_one_where_not():
    sizes = {"architecture": FULL, "precision": "bfloat16", "max_memory_bytes": 3 * GIB}
    assert choose_forward((512, 512), batch_size=16, **sizes).forward == "batch"
    assert choose_forward((2000, 2000), batch_size=16, **sizes).forward == "whole"


def test_the_estimate_grows_with_size_width_and_precision():
    base = whole_bytes((1000, 1000), FULL, "bfloat16")
    assert whole_bytes((1000, 1001), FULL, "bfloat16") > base
    assert whole_bytes((1000, 1000), FULL, "float32") > base
    assert whole_bytes((1000, 1000), Architecture(width=0.5), "bfloat16") < base
    assert tiled_bytes((1000, 1000), FULL, "bfloat16", 2) < base


def test_maps_move_to_the_scratch_file_as_memory_shrinks():
    size_px = (10_000, 10_000)
    plans = [plan_tiled(size_px, FULL, "float32", max_memory_bytes=n * GIB) for n in (20, 12, 6, 4)]
    assert [plan.planes_in_memory for plan in plans] == [3, 2, 1, 0]
    plane_bytes = 2500 * 2500 * 128 * 4
    assert [plan.scratch_bytes for plan in plans] == [0, 0, plane_bytes, 2 * plane_bytes]
    hopeless = plan_tiled(size_px, FULL, "float32", max_memory_bytes=1)
    assert hopeless.planes_in_memory == 0 and hopeless.peak_bytes > 1 and hopeless.max_threads == 1
    assert hopeless.peak_bytes == tiled_peak_bytes(size_px, FULL, "float32", max_memory_bytes=1)


def test_further_threads_take_memory_of_what_is_left():
    size_px = (2_000, 20_000)
    for num_threads in (1, 4):
        plan = plan_tiled(size_px, FULL, "float32", max_memory_bytes=4 * GIB, num_threads=num_threads)
        assert plan.peak_bytes <= 4 * GIB
        assert plan.max_threads >= num_threads
        planes = plan.planes_in_memory
        assert tiled_bytes(size_px, FULL, "float32", planes, plan.max_threads) <= 4 * GIB
        assert tiled_bytes(size_px, FULL, "float32", planes, plan.max_threads + 1) > 4 * GIB


SCRIPT = """
import json, sys
import numpy as np
import torch
from stylemill.nn.fast_net import FastNet
from stylemill.nn.tiled import stylize_tiled
from stylemill.nn.transformer_net import Architecture, TransformerNet

case, precision, width, side_px = json.loads(sys.argv[1])
torch.set_num_threads(1)
net = TransformerNet(Architecture(width=width))
net.init_weights(0)
fast = FastNet(net, precision=precision)
image_HWC = np.random.default_rng(0).integers(0, 256, (side_px, side_px, 3), dtype=np.uint8)
for _ in range(2):
    if case == "whole":
        fast.stylize(image_HWC)
    else:
        stylize_tiled(fast, image_HWC, max_memory_bytes=1 << 40 if case == "memory" else 0)
# Not ru_maxrss: it starts from the peak of the process that forked this one.
status = open("/proc/self/status").read()
print(int(status.split("VmHWM:")[1].split()[0]) << 10)
"""


def measured_peak_bytes(*arguments):
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(run.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("precision", "width", "side_px"),
    [
        ("float32", 0.25, 1000),
        pytest.param("float32", 1.0, 1600, marks=pytest.mark.slow),
        pytest.param("float32", 0.5, 2800, marks=pytest.mark.slow),
    ],
)
def test_measured_peaks_stay_within_the_estimate(precision, width, side_px):
    architecture, size_px = Architecture(width=width), (side_px, side_px)
    whole = whole_bytes(size_px, architecture, precision)
    assert 0.6 * whole < measured_peak_bytes("whole", precision, width, side_px) <= whole
    for case, planes_in_memory in (("memory", 3), ("file", 0)):
        tiled = tiled_bytes(size_px, architecture, precision, planes_in_memory)
        assert 0.6 * tiled < measured_peak_bytes(case, precision, width, side_px) <= tiled
