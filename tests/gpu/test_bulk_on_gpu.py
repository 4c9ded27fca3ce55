"""What the painting stage does on a GPU: nvJPEG, batches in flight. Needs torchvision and PyYAML besides."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("torchvision")
pytest.importorskip("yaml")

from stylemill.images.options import DecodeOptions
from stylemill.images.plain_jpeg import plain_jpeg
from stylemill.images.source_image import SourceImage
from stylemill.nn.fast_net import FastNet
from stylemill.nn.transformer_net import Architecture, TransformerNet
from stylemill.painting.options import PaintOptions
from stylemill.storage import Storage
from stylemill.stylizing.config import StylizeConfig
from stylemill.stylizing.gpu_actors import DeviceJpegDecoder
from stylemill.stylizing.paint import BatchPainter
from stylemill.stylizing.sample import Painted, Sample

from .test_cuda import images, psnr_db

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")


def file_of(image_HWC: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


def undecoded(data: bytes, key: str) -> Sample:
    jpeg = plain_jpeg(data, DecodeOptions())
    assert jpeg is not None
    return Sample(planned={"key": key}, jpeg=jpeg)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_nvjpeg_gives_what_libjpeg_gives_but_for_rounding(options):
    files = [file_of(image_HWC, **options) for image_HWC in images(3)]
    samples = [undecoded(data, str(number)) for number, data in enumerate(files)]
    DeviceJpegDecoder("cuda", Storage(), DecodeOptions())(samples)
    for sample, data in zip(samples, files, strict=True):
        assert sample.source is not None
        assert psnr_db(sample.source.image_HWC, np.asarray(Image.open(io.BytesIO(data)))) > 40


def test_what_nvjpeg_refuses_is_judged_by_the_careful_decoder():
    good = file_of(images(1)[0])
    bad = good
    while (at := bad.find(b"\xff\xdb")) >= 0:
        bad = bad[:at] + bad[at + 2 + int.from_bytes(bad[at + 2 : at + 4], "big") :]
    samples = [undecoded(good, "good"), undecoded(bad, "bad")]
    DeviceJpegDecoder("cuda", Storage(), DecodeOptions(isolate_decoding=False))(samples)
    assert samples[0].source is not None
    assert samples[1].failure is not None and samples[1].failure.error_type == "Corrupt"


def test_batches_in_flight_equal_images_alone():
    net = TransformerNet(Architecture(width=0.5)).eval()
    net.init_weights(0)
    fast = FastNet(net, precision="auto", device="cuda")
    pictures = [*images(20), *images(3, 64, 80)]
    sources = [SourceImage(image_HWC=image_HWC, source_format="png", source_mode="RGB") for image_HWC in pictures]
    samples = [Sample(planned={"key": str(number)}, source=source) for number, source in enumerate(sources)]
    BatchPainter(
        {"s": fast}, StylizeConfig(model=("m",), input="i", out="o", paint=PaintOptions(device="cuda"), batch_size=4)
    )(samples)
    for sample, image_HWC in zip(samples, pictures, strict=True):
        painted = sample.painted["s"]
        assert isinstance(painted, Painted)
        assert psnr_db(painted.frames_HWC[0], fast.stylize(image_HWC)) > 50
