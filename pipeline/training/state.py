"""Everything that a training run carries from step to step, as tensors and plain numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.nn.transformer_net import TransformerNet

_MODEL, _AVERAGE, _OPTIMIZER = "model.", "average.", "optimizer."
_SLOTS = ("step", "exp_avg", "exp_avg_sq")
_NUMBERS = ("rate_scale", "num_skipped", "num_skipped_in_a_row")


@dataclass(kw_only=True)
class TrainState:
    """The mutable state of one run; equal on all workers.

    Args:
        net: the network in training.
        optimizer: Adam over its parameters.
        average: running mean of the weights, and of the statistics of batch norms, by name.
        step: updates tried so far, skipped ones included.
        rate_scale: multiplier of the learning rate; halved by each roll-back.
        num_skipped: updates skipped because something was not finite.
        num_skipped_in_a_row: of these, the ones since the last update that was made.
    """

    net: TransformerNet
    optimizer: torch.optim.Adam
    average: dict[str, Tensor]
    step: int = 0
    rate_scale: float = 1.0
    num_skipped: int = 0
    num_skipped_in_a_row: int = 0

    @classmethod
    def fresh(cls, net: TransformerNet) -> TrainState:
        """Return the state before the first step."""
        optimizer = torch.optim.Adam(net.parameters(), betas=(0.9, 0.99))
        average = {name: tensor.detach().clone() for name, tensor in net.state_dict(keep_vars=True).items()}
        return cls(net=net, optimizer=optimizer, average=average)

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next update."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def count_step(self, was_updated: bool, ema_decay: float) -> None:
        """Take note of a step: the mean of the weights follows an update, a skipped one is counted."""
        self.step += 1
        self.num_skipped_in_a_row = 0 if was_updated else self.num_skipped_in_a_row + 1
        if was_updated:
            self.update_average(ema_decay)
        else:
            self.num_skipped += 1

    @torch.no_grad()
    def update_average(self, decay: float) -> None:
        """Move the running mean towards the weights; faster at first, when the mean is of little."""
        decay = min(decay, (1 + self.step) / (10 + self.step))
        for name, parameter in self.net.state_dict(keep_vars=True).items():
            self.average[name].lerp_(parameter.detach(), 1 - decay)

    @property
    def is_finite(self) -> bool:
        """Whether the weights, and their running mean, hold nothing but numbers."""
        tensors = (*self.net.state_dict().values(), *self.average.values())
        return all(bool(tensor.isfinite().all()) for tensor in tensors)

    def to_tensors(self) -> dict[str, Tensor]:
        """Return copies of all tensors on the CPU, and the generator's state, by name."""
        tensors = {_MODEL + name: tensor for name, tensor in self.net.state_dict().items()}
        tensors |= {_AVERAGE + name: tensor for name, tensor in self.average.items()}
        names = [name for name, _ in self.net.named_parameters()]
        for index, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"{_OPTIMIZER}{names[index]}.{slot}": tensor for slot, tensor in slots.items()}
        tensors = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
        return tensors | {"generator": torch.get_rng_state()}

    def to_numbers(self) -> dict[str, Any]:
        """Return everything that is no tensor, but for the step."""
        return {name: getattr(self, name) for name in _NUMBERS}

    def load(self, step: int, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """Take over a step and what ``to_tensors`` and ``to_numbers`` returned after it; raises as below."""
        self._load_tensors(tensors)
        self.step = step
        for name in _NUMBERS:
            setattr(self, name, numbers[name])

    def _load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take over what ``to_tensors`` returned.

        Raises:
            KeyError, RuntimeError: the tensors are of another network.
        """
        self.net.load_state_dict(_with_prefix(tensors, _MODEL))
        for name, tensor in _with_prefix(tensors, _AVERAGE).items():
            self.average[name].copy_(tensor)
        slots = _with_prefix(tensors, _OPTIMIZER)
        saved = self.optimizer.state_dict()
        saved["state"] = {
            index: {slot: _laid_out_like(parameter, slots[f"{name}.{slot}"]) for slot in _SLOTS}
            for index, (name, parameter) in enumerate(self.net.named_parameters())
            if f"{name}.step" in slots
        }
        self.optimizer.load_state_dict(saved)
        torch.set_rng_state(tensors["generator"])


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _laid_out_like(parameter: Tensor, slot: Tensor) -> Tensor:
    """Return a slot in its parameter's memory layout, as it was before it was saved: the same loops go over it."""
    return torch.empty_like(parameter).copy_(slot) if slot.shape == parameter.shape else slot
