"""ConfigErrors under another field."""

from __future__ import annotations

import pytest

from stylemill.errors import ConfigError, config_errors_for


def fail(field: str = "location") -> None:
    raise ConfigError(field, "/a/b", "does not exist", "give another")


def test_the_field_is_replaced():
    with pytest.raises(ConfigError) as caught, config_errors_for("style_image"):
        fail()
    assert str(caught.value) == "style_image='/a/b': does not exist; give another"


def test_value_and_cure_can_be_replaced():
    with pytest.raises(ConfigError) as caught, config_errors_for("model", value="b", cure="train it"):
        fail()
    assert str(caught.value) == "model='b': does not exist; train it"


def test_fields_that_are_kept_pass_unchanged():
    with pytest.raises(ConfigError) as caught, config_errors_for("model", value="b", keep=("registry",)):
        fail("registry")
    assert (caught.value.field, caught.value.value) == ("registry", "/a/b")
