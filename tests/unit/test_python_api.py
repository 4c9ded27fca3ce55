"""``stylemill.StyleModel``: the pixels of the bulk flow, for every kind of picture."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import stylemill
from stylemill.errors import ConfigError, ImageError, NotAnImage
from stylemill.images.decode import decode
from stylemill.images.options import DecodeOptions
from stylemill.nn.fast_net import FastNet
from stylemill.painting.options import PaintOptions
from stylemill.storage import Storage
from stylemill.style_model import StyleModel
from stylemill.stylizing.config import StylizeConfig
from stylemill.stylizing.paint import Painter
from stylemill.stylizing.preflight import prepare
from stylemill.stylizing.sample import Painted, Sample
from tests.drawn import drawn_image, image_bytes, style_model
from tests.processes import environment


@pytest.fixture(scope="module")
def model(style_file: Path) -> StyleModel:
    return stylemill.StyleModel.load(style_file)


def bulk_pixels(data: bytes, style_file: Path, folder: Path, **options: object) -> np.ndarray:
    """Return what the bulk flow paints before it encodes."""
    (folder / "in").mkdir()
    (folder / "in" / "a.jpg").write_bytes(data)
    paint = PaintOptions(**options)  # type: ignore[arg-type]
    out = str(folder / "out")
    run = prepare(StylizeConfig(model=(str(style_file),), input=str(folder / "in"), out=out, paint=paint))
    sample = Sample(planned={"key": "a.jpg"}, source=decode(data, DecodeOptions()))
    (painted,) = Painter(Storage(), run.layout, run.identity, run.config)(sample).painted.values()
    assert isinstance(painted, Painted)
    return painted.frames_HWC[0]


@pytest.mark.parametrize(
    "options",
    [{}, {"strength": 0.3, "preserve_color": True}, {"max_size_px": 30, "texture_scale": 1.5}, {"strength": 0.0}],
)
def test_pixels_are_those_of_the_bulk_flow(
    model: StyleModel, style_file: Path, tmp_path: Path, options: dict[str, object]
):
    data = image_bytes(40, 60, 1)
    wanted_HWC = bulk_pixels(data, style_file, tmp_path, **options)
    path = tmp_path / "in" / "a.jpg"
    for picture in (path, str(path), data, Image.open(io.BytesIO(data))):
        result = model.paint(picture, **options)  # type: ignore[call-overload]
        assert isinstance(result, Image.Image) and result.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(result), wanted_HWC)
    result = model.paint(decode(data, DecodeOptions()).image_HWC, **options)  # type: ignore[call-overload]
    assert isinstance(result, np.ndarray)
    np.testing.assert_array_equal(result, wanted_HWC)


def test_alpha_gray_and_orientation_are_regarded(model: StyleModel):
    image_HWC = drawn_image(20, 30)
    alpha_HW = np.linspace(0, 255, 600).reshape(20, 30).astype(np.uint8)
    result = model.paint(np.dstack([image_HWC, alpha_HW]))
    np.testing.assert_array_equal(result[..., :3], model.paint(image_HWC))
    np.testing.assert_array_equal(result[..., 3], alpha_HW)
    assert model.paint(np.dstack([image_HWC, alpha_HW]), max_size_px=15).shape == (10, 15, 4)
    gray_HW = image_HWC[..., 0]
    as_three_HWC = model.paint(np.dstack([gray_HW] * 3))
    for gray in (gray_HW, gray_HW[..., None]):
        np.testing.assert_array_equal(model.paint(gray), as_three_HWC)
    np.testing.assert_array_equal(np.asarray(model.paint(Image.fromarray(gray_HW))), as_three_HWC)
    turned = Image.Exif()
    turned[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "PNG", exif=turned)
    upright = model.paint(buffer.getvalue())
    assert upright.size == (20, 30)
    assert model.paint(Image.open(buffer)) == upright


def test_a_network_is_prepared_once(monkeypatch: pytest.MonkeyPatch):
    built = []
    prepared = FastNet.__init__
    monkeypatch.setattr(FastNet, "__init__", lambda *given, **more: built.append(1) or prepared(*given, **more))
    fresh = style_model()
    for strength in (1.0, 0.5):
        fresh.paint(drawn_image(16, 16), strength=strength, precision="float32")
    assert len(built) == 1
    copied = pickle.loads(pickle.dumps(fresh))  # noqa: S301 (our own bytes)
    np.testing.assert_array_equal(copied.paint(drawn_image(16, 16)), fresh.paint(drawn_image(16, 16)))


def test_a_saved_model_comes_back(tmp_path: Path):
    saved = style_model().save(tmp_path / "mine.safetensors")
    loaded = StyleModel.load(str(tmp_path / "mine.safetensors"))
    assert saved.sha256 == loaded.sha256 != ""
    np.testing.assert_array_equal(loaded.paint(drawn_image(16, 16)), saved.paint(drawn_image(16, 16)))


def test_mistakes_are_named(model: StyleModel, tmp_path: Path):
    with pytest.raises(ConfigError, match="strength"):
        model.paint(drawn_image(8, 8), strength=1.5)
    with pytest.raises(ConfigError, match="does not exist"):
        StyleModel.load(tmp_path / "gone.safetensors")
    with pytest.raises(ImageError, match="gone"):
        model.paint(tmp_path / "gone.jpg")
    with pytest.raises(NotAnImage):
        model.paint(b"Shot on a rainy Sunday.\n" * 20)
    for array in (np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match="must be"):
            model.paint(array)
    with pytest.raises(TypeError, match="Pillow"):
        model.paint(7)  # type: ignore[call-overload]


def test_importing_the_package_and_the_class_is_light():
    code = (
        "import sys, stylemill; stylemill.StyleModel; 'StyleModel' in dir(stylemill) or sys.exit('not listed');"
        "heavy = {'torch', 'ray', 'torchvision', 'pyarrow', 'PIL', 'numpy'} & set(sys.modules);"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False
    )
    assert answer.stderr == ""
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        stylemill.Nothing  # noqa: B018
