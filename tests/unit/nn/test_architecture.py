from __future__ import annotations

import pytest

from stylemill.nn.architecture import Architecture, PixelConvention
from tests.unit.nn.nets import VARIANTS


@pytest.mark.parametrize("width", [0, -1.0, 4.5])
def test_a_width_out_of_range_is_refused(width):
    with pytest.raises(ValueError, match="width"):
        Architecture(width=width)


@pytest.mark.parametrize(
    ("field", "value"), [("norm", "none"), ("residual", "dense"), ("output", "relu"), ("upsampling", "lanczos")]
)
def test_an_unknown_word_is_refused(field, value):
    with pytest.raises(ValueError, match=field):
        Architecture(**{field: value})


@pytest.mark.parametrize(
    "fields", [{"input_scale": 0.0}, {"output_scale": float("nan")}, {"channel_order": "grb"}, {"normalisation": "z"}]
)
def test_an_impossible_pixel_convention_is_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        PixelConvention(**fields)


def test_a_default_architecture_is_written_as_it_always_was():
    assert Architecture().to_mapping() == {"width": 1.0, "upsampling": "nearest"}
    for fields in VARIANTS.values():
        architecture = Architecture(**fields)
        assert Architecture.from_mapping(architecture.to_mapping()) == architecture
    with pytest.raises(ValueError, match="newer"):
        Architecture.from_mapping({"width": 1.0, "attention": True})
