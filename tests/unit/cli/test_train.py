"""The progress line of a training."""

from __future__ import annotations

from stylemill.cli.train import progress_text
from stylemill.training.tracker import TrainProgress


def test_before_the_first_step_the_line_has_no_rate():
    assert progress_text(TrainProgress()) == "starting workers"
    assert progress_text(TrainProgress(steps=2000, resumed_at=0)) == "step 0/2,000"


def test_after_the_first_step_the_line_has_loss_rate_and_time_left():
    text = progress_text(TrainProgress(step=10, steps=2000, resumed_at=0, batch_size=4, loss=1.5, images_per_s=4.0))
    assert text.startswith("step 10/2,000, loss 1.500, 4.00 images/s, ") and text.endswith(" left")
