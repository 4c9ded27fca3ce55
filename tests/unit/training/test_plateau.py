from __future__ import annotations

from stylemill.training.schedule import Plateau


def develop(*means):
    plateau = Plateau()
    for mean in means:
        plateau = plateau.after([mean - 1, mean + 1])
    return plateau


def test_counts_checkpoints_since_the_best():
    assert develop(5, 4, 3) == Plateau(best_loss=3, num_without_gain=0)
    assert develop(5, 4, 4, 6) == Plateau(best_loss=4, num_without_gain=2)
    assert develop(5, 4, 6, 3) == Plateau(best_loss=3, num_without_gain=0)


def test_patience():
    assert not develop(5, 6, 7).is_reached(3)
    assert develop(5, 6, 7).is_reached(2)
    assert not develop(5, 6, 7, 8, 9).is_reached(0)


def test_checkpoints_without_any_finite_step_are_no_gain():
    assert Plateau(best_loss=2.0).after([]) == Plateau(best_loss=2.0, num_without_gain=1)
