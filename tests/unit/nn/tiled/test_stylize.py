from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylemill.nn.cpu.thread_team import ThreadTeam
from stylemill.nn.tiled import stylize_tiled
from stylemill.nn.tiled.stylize import tiled_values
from tests.unit.nn.nets import VARIANTS, drawn_image, fast_net, fast_variant, smooth_image

ROOT = Path(__file__).resolve().parents[4]
PLENTY = 1 << 40
NOTHING = 0
ONE_ROW = 1
"""Band bytes that leave a single row per band: far less than the 9 px kernels reach."""


@pytest.mark.parametrize("upsampling", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("width", "size"), [(0.5, (61, 94)), (1.0, (30, 47)), (0.25, (7, 120)), (0.25, (130, 5))], ids=str
)
def test_tiled_equals_whole(width, size, upsampling):
    fast, image_HWC = fast_net(width, upsampling, num_threads=2), smooth_image(*size)
    whole_HWC = fast.values(image_HWC)
    for band_bytes in (ONE_ROW, 50_000):
        tiled_HWC = tiled_values(fast, image_HWC, max_memory_bytes=PLENTY, band_bytes=band_bytes)
        assert np.abs(tiled_HWC - whole_HWC).max() < 0.01


@pytest.mark.parametrize(("precision", "width"), [("float32", 0.25), ("float32", 0.5), ("auto", 0.25)])
@pytest.mark.usefixtures("two_torch_threads")
def test_bytes_do_not_depend_on_threads_or_on_where_the_maps_are_stored(precision, width):
    image_HWC = smooth_image(75, 50)
    wanted = None
    for threads in (1, 2, 3):
        fast = fast_net(width, precision=precision, num_threads=threads)
        for max_memory_bytes in (PLENTY, NOTHING):
            painted_HWC = stylize_tiled(
                fast, image_HWC, max_memory_bytes=max_memory_bytes, scratch_dir=None, band_bytes=6000
            )
            wanted = wanted or painted_HWC.tobytes()
            assert painted_HWC.tobytes() == wanted


@pytest.mark.usefixtures("two_torch_threads")
def test_threads_may_come_and_go_between_passes():
    fast, image_HWC = fast_net(0.25, num_threads=1), smooth_image(150, 60)
    wanted_HWC = stylize_tiled(fast, image_HWC, max_memory_bytes=NOTHING, band_bytes=6000)
    asked = []

    def idle_cores() -> int:
        asked.append(1 + len(asked) % 3)
        return asked[-1]

    painted_HWC = stylize_tiled(fast, image_HWC, max_memory_bytes=PLENTY, band_bytes=6000, idle_cores=idle_cores)
    assert np.array_equal(painted_HWC, wanted_HWC)
    assert len(asked) == 16 and fast.threads.num_threads == 1  # once for each pass


def test_idle_cores_get_only_threads_for_which_there_is_memory(monkeypatch):
    fast, image_HWC, used = fast_net(0.25, num_threads=1), smooth_image(150, 60), set()
    resize = ThreadTeam.resize
    monkeypatch.setattr(ThreadTeam, "resize", lambda team, count: (used.add(count), resize(team, count)))
    stylize_tiled(fast, image_HWC, max_memory_bytes=NOTHING, band_bytes=6000, idle_cores=lambda: 3)
    assert used == {1}
    stylize_tiled(fast, image_HWC, max_memory_bytes=PLENTY, band_bytes=6000, idle_cores=lambda: 3)
    assert used == {1, 3}


def test_every_small_size_comes_back_in_its_own_size():
    fast = fast_net(0.05, num_threads=1)
    for side_px in range(1, 40, 3):
        image_HWC = drawn_image(side_px, 41 - side_px)
        painted_HWC = stylize_tiled(fast, image_HWC, max_memory_bytes=PLENTY, band_bytes=500)
        assert painted_HWC.shape == image_HWC.shape and painted_HWC.dtype == np.uint8


def test_there_is_no_seam_between_bands(tmp_path):
    """Bands of 10 and of 87 rows at full resolution."""
    fast, image_HWC = fast_net(0.15), smooth_image(400, 1200)
    whole_HWC = fast.values(image_HWC)
    for band_bytes in (1 << 18, 1 << 21):
        tiled_HWC = tiled_values(fast, image_HWC, max_memory_bytes=PLENTY, band_bytes=band_bytes)
        difference_HWC = np.abs(tiled_HWC - whole_HWC)
        if difference_HWC.max() >= 0.05:
            amplified_HWC = np.clip(difference_HWC / difference_HWC.max() * 255, 0, 255).astype(np.uint8)
            Image.fromarray(amplified_HWC).save(tmp_path / "difference.png")
        assert difference_HWC.max() < 0.05, f"see {tmp_path}/difference.png, bands of {band_bytes} bytes"


SCRIPT = """
import resource, sys
import numpy as np
from stylemill.errors import ImageError
from stylemill.nn.fast_net import FastNet
from stylemill.nn.tiled import stylize_tiled
from stylemill.nn.transformer_net import Architecture, TransformerNet

net = TransformerNet(Architecture(width=0.25))
net.init_weights(0)
image_HWC = np.zeros((int(sys.argv[2]), 512, 3), np.uint8)
image_HWC[0, 0] = 1
if sys.argv[3] == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
fast = FastNet(net, precision="float32", num_threads=1)
print("started", flush=True)
try:
    stylize_tiled(fast, image_HWC, max_memory_bytes=0, scratch_dir=sys.argv[1])
except ImageError as error:
    print(error.error_type, error, flush=True)
"""


def start(scratch_dir, height_px, mode):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(scratch_dir), str(height_px), mode],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def test_a_scratch_file_that_cannot_grow_is_an_image_error(tmp_path):
    out, _ = start(tmp_path, 1024, "full").communicate(timeout=120)
    assert "ScratchFull" in out and "TMPDIR" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc for the open file")
def test_a_kill_in_mid_image_leaves_no_scratch_behind(tmp_path):
    process = start(tmp_path, 8192, "kill")
    folder = Path(f"/proc/{process.pid}/fd")

    def scratch_is_open():
        with contextlib.suppress(FileNotFoundError):  # one of them was closed between being listed and being read
            return any(str(tmp_path) in str(link.readlink()) for link in folder.iterdir() if link.is_symlink())
        return False

    try:
        deadline = time.monotonic() + 120
        while not scratch_is_open():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


def test_other_arrays_than_images_are_refused():
    with pytest.raises(ValueError, match="image"):
        stylize_tiled(fast_net(0.05), np.zeros((8, 8), np.uint8), max_memory_bytes=PLENTY)


def test_an_image_of_one_colour_is_the_same_in_every_form():
    image_HWC = np.full((150, 200, 3), (10, 200, 90), np.uint8)
    net = fast_net(precision="bfloat16")
    whole_HWC = net.stylize(image_HWC)
    assert np.array_equal(stylize_tiled(net, image_HWC, max_memory_bytes=2 << 30), whole_HWC)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_in_tiles_equals_whole(name):
    fast, image_HWC = fast_variant(name), smooth_image(61, 94)
    whole_HWC = fast.values(image_HWC)
    for band_bytes in (ONE_ROW, 50_000):
        tiled_HWC = tiled_values(fast, image_HWC, max_memory_bytes=PLENTY, band_bytes=band_bytes)
        assert np.abs(tiled_HWC - whole_HWC).max() < 0.01
