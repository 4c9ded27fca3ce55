"""Batches decoded in background threads, a few steps ahead of the training."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from pipeline.training.content import Content
from pipeline.training.sampler import Sampler

STEPS_AHEAD = 3
DECODING_THREADS = 2


class Batches:
    """One worker's part of each step's batch.

    Args:
        content: the images.
        sampler: which image and crop each sample is.
        share: step -> global sample indices of this worker.
    """

    def __init__(self, content: Content, sampler: Sampler, share: Callable[[int], list[int]]) -> None:
        self._content = content
        self._sampler = sampler
        self._share = share
        self._pool = ThreadPoolExecutor(DECODING_THREADS, thread_name_prefix="decode")

    def steps(self, first: int, end: int) -> Iterator[NDArray[np.uint8]]:
        """Yield the (N, crop_px, crop_px, 3) uint8 crops of steps ``first`` to ``end - 1``."""
        waiting: deque[list[Future[NDArray[np.uint8]]]] = deque()
        following = first
        for _ in range(first, end):
            while following < end and len(waiting) < STEPS_AHEAD:
                samples = [self._sampler.sample(index) for index in self._share(following)]
                waiting.append([self._pool.submit(self._content.crop, sample) for sample in samples])
                following += 1
            yield np.stack([crop.result() for crop in waiting.popleft()])

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)
