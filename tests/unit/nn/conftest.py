"""One torch thread for these tests: with two, small networks take three times the CPU time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_torch_thread() -> Iterator[None]:
    """Run each module with one torch thread; forms with more threads of their own still use these."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def two_torch_threads(one_torch_thread: None) -> Iterator[None]:
    """For tests of what must not depend on torch's threads."""
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)
