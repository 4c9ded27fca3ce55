"""A ballot over drawn pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from stylemill.experiments.ballot import BallotBox, make_questions
from stylemill.storage import Storage
from tests.unit.experiments.tables import measured_pictures


@pytest.fixture
def box(tmp_path: Path) -> BallotBox:
    return BallotBox(Storage(), str(tmp_path / "out"), make_questions(measured_pictures(tmp_path)))
