from __future__ import annotations

import pytest

from stylemill.errors import ConfigError
from stylemill.nn.precision import native_bfloat16, resolve_precision


def test_precisions_and_devices_that_are_not_there_are_named():
    with pytest.raises(ConfigError, match="half"):
        resolve_precision("half")
    with pytest.raises(ConfigError, match="this machine has cpu"):
        resolve_precision("float32", "cuda:99")
    assert resolve_precision("auto") == ("bfloat16" if native_bfloat16() else "float32")
    assert resolve_precision("float32") == "float32"
    if not native_bfloat16():
        with pytest.raises(ConfigError, match="native"):
            resolve_precision("bfloat16")
