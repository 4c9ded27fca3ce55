"""Decoding JPEGs where the network runs: nvJPEG on a GPU, by way of torchvision.

Nothing in this file has run on a GPU yet (see docs/performance.md); the tests run it with the decoder for CPUs.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Sequence

import torch

from pipeline.images.options import DecodeOptions
from pipeline.images.plain_jpeg import PlainJpeg
from pipeline.images.source_image import SourceImage
from pipeline.storage import Storage
from pipeline.stylizing.reader import Fetched, Reader
from pipeline.stylizing.sample import Sample

log = logging.getLogger(__name__)


class DeviceJpegDecoder:
    """Decodes the plain JPEGs that the read stage left as they were.

    What the device refuses goes to the careful decoder, whose verdict counts.

    Args:
        device: where to decode: ``cuda``, or ``cpu`` for torchvision's own libjpeg.
        storage: of the run.
        options: of the careful decoder.
    """

    def __init__(self, device: str, storage: Storage, options: DecodeOptions) -> None:
        self._device = device
        self._storage = storage
        self._options = options
        self._careful: Reader | None = None

    def __call__(self, samples: Sequence[Sample]) -> None:
        """Fill in ``source``, or ``failure``, of every sample that holds a plain JPEG.

        Raises:
            ClusterError: this machine cannot start a decoder.
        """
        left = [(sample, sample.jpeg) for sample in samples if sample.jpeg is not None]
        if not left:
            return
        start_s = time.perf_counter()
        decoded = self._decode([jpeg for _, jpeg in left])
        each_ms = 1000 * (time.perf_counter() - start_s) / len(left)
        for (sample, jpeg), source in zip(left, decoded, strict=True):
            sample.jpeg = None
            sample.decode_ms = (sample.decode_ms or 0.0) + each_ms
            sample.source = source
            if source is None:
                self._carefully(Fetched(sample, jpeg.data))

    def _carefully(self, fetched: Fetched) -> None:
        if self._careful is None:  # it has a process of its own, which most runs never need here
            self._careful = Reader(self._storage, self._options)
            log.warning("%s does not decode every JPEG; the careful decoder does the rest", self._device)
        fetched.sample.width_px = fetched.sample.height_px = None  # by the header, which may lie
        self._careful.decode(fetched)

    def _decode(self, jpegs: Sequence[PlainJpeg]) -> list[SourceImage | None]:
        try:
            return list(self._on_device(jpegs))
        except (RuntimeError, ValueError) as error:
            if len(jpegs) == 1:
                log.debug("%s did not decode a JPEG", self._device, exc_info=error)
                return [None]
        # One of them spoils the whole call.
        return [one for jpeg in jpegs for one in self._decode([jpeg])]

    def _on_device(self, jpegs: Sequence[PlainJpeg]) -> list[SourceImage]:
        """Return all sources, their pixels in host memory.

        Raises:
            RuntimeError: one of them cannot be decoded, or the device has no decoder or no memory.
            ValueError: one has another size than its header says.
        """
        from torchvision.io import ImageReadMode, decode_jpeg

        files = [torch.frombuffer(bytearray(jpeg.data), dtype=torch.uint8) for jpeg in jpegs]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated in favour of a package with builds for GPUs of its own
            images_CHW = decode_jpeg(files, mode=ImageReadMode.RGB, device=self._device)
        stored = [image_CHW.permute(1, 2, 0).contiguous().cpu().numpy() for image_CHW in images_CHW]
        return [jpeg.source(stored_HWC) for jpeg, stored_HWC in zip(jpegs, stored, strict=True)]
