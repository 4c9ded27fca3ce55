"""Event files for TensorBoard, one for the steps between two checkpoints.

A file is written together with the checkpoint at its end and named after its first step. A resumed run removes the
files of steps after the one at which it resumes and writes them again, so that no step appears twice.
"""

from __future__ import annotations

import importlib.util
import io
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from stylemill.errors import ConfigError
from stylemill.storage import Storage, join
from stylemill.training.layout import Row

_TAGS = {
    "loss": "loss/total",
    "content_loss": "loss/content",
    "style_loss": "loss/style",
    "tv_loss": "loss/total variation",
    "grid_loss": "loss/grid",
    "lattice_loss": "loss/lattice",
    "teacher_loss": "loss/teacher",
    "steady_loss": "loss/steady",
    "photo_loss": "loss/photo",
    "gradient_norm": "training/gradient norm",
    "learning_rate": "training/learning rate",
    "images_per_s": "pace/images per s",
    "data_wait_s": "pace/data wait s",
    "peak_memory_bytes": "pace/peak memory bytes",
}
_FILE = re.compile(r"events\.out\.tfevents\.(\d{10})\.stylemill")


def check_tensorboard() -> None:
    """Raise ConfigError unless the tensorboard package is installed."""
    if importlib.util.find_spec("tensorboard") is None:
        cure = "pip install 'stylemill[tensorboard]', or leave --tensorboard out"
        raise ConfigError("tensorboard", True, "needs the tensorboard package, which is not installed", cure)


class EventFiles:
    """The event files of one run.

    Args:
        storage: holds the run.
        prefix_uri: folder of the files.
        batch_size: crops of a step; with ``images_per_s`` it gives the duration of a step.
    """

    def __init__(self, storage: Storage, prefix_uri: str, batch_size: int) -> None:
        self._storage, self._prefix_uri, self._batch_size = storage, prefix_uri, batch_size
        self._next_step: int | None = None
        self._grids: list[tuple[int, bytes]] = []

    def continue_after(self, step: int) -> None:
        """Remove the files of later steps, which are trained again."""
        has_earlier = False
        for found in self._storage.list_objects(self._prefix_uri):
            match = _FILE.fullmatch(found.key)
            if match is not None and int(match[1]) > step:
                self._storage.delete(found.uri)
            has_earlier |= match is not None and int(match[1]) <= step
        # A run that enables TensorBoard later writes the events of all its steps.
        self._next_step, self._grids = step + 1 if has_earlier else 1, []

    def add_grid(self, step: int, grid_jpeg: bytes) -> None:
        """Keep a sample grid for the next file."""
        self._grids.append((step, grid_jpeg))

    def write(self, rows: Sequence[Row]) -> None:
        """Write the rows that no file holds yet, and the sample grids since the last file.

        Args:
            rows: of steps 1 to the newest, without gaps.
        """
        if self._next_step is None:
            self.continue_after(0)
        assert self._next_step is not None
        new = rows[self._next_step - 1 :]
        if not new:
            return
        name = f"events.out.tfevents.{self._next_step:010d}.stylemill"
        data = _encode(new, list(self._step_times(new)), self._grids)
        self._storage.write_bytes(join(self._prefix_uri, name), data)
        self._next_step, self._grids = new[-1]["step"] + 1, []

    def _step_times(self, rows: Sequence[Row]) -> Iterator[float]:
        """Yield the end of each step in seconds since 1970, computed back from now by the steps' durations."""
        seconds = [self._batch_size / row["images_per_s"] for row in rows]
        ended_s = time.time() - sum(seconds)
        for step_s in seconds:
            ended_s += step_s
            yield ended_s


def _encode(rows: Sequence[Row], times_s: Sequence[float], grids: Sequence[tuple[int, bytes]]) -> bytes:
    """Encode rows and grids as one event file."""
    from torch.utils.tensorboard import SummaryWriter

    with tempfile.TemporaryDirectory(prefix="stylemill-events-") as folder:
        with SummaryWriter(folder) as writer:
            for row, time_s in zip(rows, times_s, strict=True):
                for column, tag in _TAGS.items():
                    if row[column] is not None:
                        writer.add_scalar(tag, row[column], row["step"], walltime=time_s)
            time_of = {row["step"]: time_s for row, time_s in zip(rows, times_s, strict=True)}
            for step, grid_jpeg in grids:
                grid_HWC = np.asarray(Image.open(io.BytesIO(grid_jpeg)))
                writer.add_image("samples", grid_HWC, step, walltime=time_of[step], dataformats="HWC")
        (file,) = Path(folder).iterdir()
        return file.read_bytes()
