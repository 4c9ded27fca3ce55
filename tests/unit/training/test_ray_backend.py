"""Finding the interface with an address."""

from __future__ import annotations

from stylemill.training.ray_backend import interface_of


def test_interfaces_by_address():
    assert interface_of("127.0.0.1") in ("lo", "lo0")
    assert interface_of("203.0.113.77") is None
