"""Both forms of what ``kernels.c`` computes."""

from __future__ import annotations

import pytest

from stylemill.nn.cpu import measured_norm, winograd
from stylemill.nn.cpu.compiled import LIBRARY


@pytest.fixture(params=["compiled", "torch"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with the compiled kernels, and with torch in their place."""
    if request.param == "torch":
        for module in (measured_norm, winograd):
            monkeypatch.setattr(module, "LIBRARY", None)
    elif LIBRARY is None:
        pytest.skip("installed without a C compiler")
    return request.param
