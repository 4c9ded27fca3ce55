from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stylemill.process import PeakMemory, family_bytes

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")

CHILD = "import sys; block = b'x' * (64 * 2**20); print('ready', flush=True); sys.stdin.read()"


@pytest.fixture
def child():
    with subprocess.Popen(
        [sys.executable, "-S", "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        yield process
        process.communicate("")


def test_descendants_are_counted(child):
    alone = family_bytes(child.pid)
    assert alone > 64 * 2**20
    assert family_bytes(os.getpid()) > alone


def test_a_process_that_is_gone_counts_nothing(child):
    child.communicate("")
    assert family_bytes(child.pid) is None


def test_the_peak_covers_what_ran_in_the_block(child):
    with PeakMemory() as memory:
        pass
    assert memory.peak_bytes > 64 * 2**20
