"""Chooses the precision and checks the device on which a network runs."""

from __future__ import annotations

from typing import Literal

import torch

from stylemill.errors import ConfigError

Precision = Literal["float32", "bfloat16"]
DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def native_bfloat16(device: str | torch.device = "cpu") -> str | None:
    """Return the name of the unit that multiplies bfloat16 on this device, or None without one.

    Emulated bfloat16 (AVX2, AVX-512 without its BF16 extension, GPUs before Ampere) does not count: it is
    slower than float32.
    """
    device = torch.device(device)
    if device.type == "cuda":
        name: str = torch.cuda.get_device_name(device)
        return name if torch.cuda.get_device_capability(device) >= (8, 0) else None
    if device.type != "cpu":
        return None
    capabilities = torch.cpu.get_capabilities()
    units = {"amx_bf16": "AMX-BF16", "avx512_bf16": "AVX512-BF16", "bf16": "Arm BF16"}
    return next((label for flag, label in units.items() if capabilities.get(flag)), None)


def check_device(device: str | torch.device) -> torch.device:
    """Return the device, or raise a ConfigError that lists the devices of this machine."""
    has = "this machine has cpu"
    if torch.cuda.is_available():
        has += "".join(f", cuda:{index}" for index in range(torch.cuda.device_count()))
    try:
        parsed = torch.device(device)
    except RuntimeError:
        raise ConfigError("device", str(device), "is not the name of a device", has) from None
    if parsed.type == "cpu":
        return parsed
    if parsed.type != "cuda" or not torch.cuda.is_available():
        raise ConfigError("device", str(device), "this machine cannot run the network there", has)
    if (parsed.index or 0) >= torch.cuda.device_count():
        raise ConfigError("device", str(device), "this GPU does not exist", has)
    return parsed


def resolve_precision(requested: str, device: str | torch.device = "cpu") -> Precision:
    """Resolve ``auto`` to the fastest precision of the device, and reject one without native support.

    Args:
        requested: ``auto``, ``float32`` or ``bfloat16``.
        device: where the network will run.
    Returns:
        ``bfloat16`` for ``auto`` where the device multiplies it natively, else ``float32``.
    Raises:
        ConfigError: an unknown precision, a device that does not exist, or bfloat16 without native support.
    """
    device = check_device(device)
    unit = native_bfloat16(device)
    if requested == "auto":
        return "bfloat16" if unit else "float32"
    if requested == "float32":
        return "float32"
    if requested != "bfloat16":
        raise ConfigError("precision", requested, "is not a precision", "use auto, float32 or bfloat16")
    if unit is None:
        raise ConfigError(
            "precision",
            requested,
            f"this machine's {device.type} has no native bfloat16, only float32 is fast on it",
            "use auto or float32",
        )
    return "bfloat16"
