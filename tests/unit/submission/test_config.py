"""Addresses of clusters."""

from __future__ import annotations

import pytest

from stylemill.errors import ConfigError
from stylemill.submission.config import JobConfig, SubmitConfig, with_address_from


@pytest.mark.parametrize(
    "address",
    ["localhost:8265", "ray://h:10001", "auto", "http://", "http://h:port", "http://h/x", "http://me:hunter2@h"],
)
def test_what_is_not_an_address(address: str):
    with pytest.raises(ConfigError) as caught:
        SubmitConfig(address=address)
    assert caught.value.field == "address" and "hunter2" not in str(caught.value)


def test_the_address_comes_from_the_flag_or_else_from_the_environment():
    environment = {"RAY_ADDRESS": "http://c", "RAY_API_SERVER_ADDRESS": "http://b"}
    assert with_address_from(SubmitConfig(address="http://a"), environment).address == "http://a"
    assert with_address_from(SubmitConfig(), environment).address == "http://b"
    with pytest.raises(ConfigError, match="RAY_ADDRESS"):
        with_address_from(SubmitConfig(), {"RAY_ADDRESS": "10.0.0.1:6379"})
    with pytest.raises(ConfigError, match=r"^--address is required; "):
        with_address_from(SubmitConfig(), {})


def test_the_id_of_a_job_is_required():
    with pytest.raises(ConfigError, match=r"^--id is required; copy"):
        JobConfig()
    with pytest.raises(ConfigError, match=r"^id='a b': is not the id of a job; copy"):
        JobConfig(id="a b")
