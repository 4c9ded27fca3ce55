from __future__ import annotations

import torch

from stylemill.nn.transformer_net import Architecture, TransformerNet
from stylemill.storage import Storage
from stylemill.style_model import load_style_model
from stylemill.training.checkpoint import TrainState
from stylemill.training.config import TrainConfig
from stylemill.training.export import export_style
from stylemill.training.layout import TrainLayout


def test_a_style_whose_last_steps_were_skipped_is_written(tmp_path):
    """The loss of a skipped step is not finite, which JSON cannot represent."""
    net = TransformerNet(Architecture(width=0.1))
    net.init_weights(0)
    losses = [1.5, float("nan"), float("inf"), 1.25]
    rows = [{"step": step, "loss": loss} for step, loss in enumerate(losses, 1)]
    export_style(
        Storage(), TrainLayout(str(tmp_path)), TrainConfig(style_image="a.png", content=("b",), out=str(tmp_path)),
        TrainState.fresh(net), rows, loss_digest="", loss_weights={"source": "hed", "licence": "MIT"},
        style_sha256="", start_sha256="ab", teacher_sha256=None, num_content=1, left_out=[],
    )  # fmt: skip
    model = load_style_model(Storage(), str(tmp_path / "style.safetensors"))
    assert model.metadata["loss_tail"] == [1.5, None, None, 1.25]
    assert model.metadata["loss_weights"] == {"source": "hed", "licence": "MIT"}
    assert model.metadata["start_sha256"] == "ab" and "teacher_sha256" not in model.metadata
    assert all(tensor.isfinite().all() for tensor in model.state_dict.values() if isinstance(tensor, torch.Tensor))
