from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from stylemill.errors import ConfigError, ObjectNotFound
from stylemill.nn.transformer_net import Architecture, TransformerNet
from stylemill.style_file import FORMAT, load_style_header, read_header
from stylemill.style_model import StyleModel, from_bytes, load_style_model, save_style_model, to_bytes
from tests.unit.nn.nets import VARIANTS, variant_net


class FolderStore:
    """A real store of bytes in a folder; the model needs nothing else of a storage."""

    def __init__(self, folder):
        self.folder = folder

    def read_bytes(self, uri):
        path = self.folder / uri
        if not path.exists():
            raise ObjectNotFound(uri)
        return path.read_bytes()

    def write_bytes(self, uri, data):
        (self.folder / uri).write_bytes(data)


def make_model(**changes) -> StyleModel:
    architecture = Architecture(width=0.125, upsampling="bilinear")
    network = TransformerNet(architecture)
    network.init_weights(seed=3)
    model = StyleModel(
        name="starry", version="1", architecture=architecture, state_dict=network.state_dict(),
        metadata={"steps": 5, "style": "café ★", "input_scale": 255.0, "nested": {"a": [1, None]}},
    )  # fmt: skip
    return replace(model, **changes)


def tampered(data: bytes, change) -> bytes:
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def test_a_saved_model_comes_back_whole(tmp_path):
    store = FolderStore(tmp_path)
    saved = save_style_model(store, "style.safetensors", make_model())
    loaded = load_style_model(store, "style.safetensors")
    assert (loaded.name, loaded.version, loaded.architecture) == ("starry", "1", saved.architecture)
    assert loaded.metadata == saved.metadata
    assert loaded.state_dict.keys() == saved.state_dict.keys()
    assert all(torch.equal(loaded.state_dict[key], saved.state_dict[key]) for key in saved.state_dict)
    digest = hashlib.sha256((tmp_path / "style.safetensors").read_bytes()).hexdigest()
    assert loaded.sha256 == saved.sha256 == digest == load_style_header(store, "style.safetensors").sha256


def test_equal_models_give_equal_bytes_in_other_processes_too():
    code = (
        "import sys; sys.path.insert(0, '.'); from stylemill.style_model import from_bytes, to_bytes;"
        "data = sys.stdin.buffer.read(); sys.stdout.buffer.write(to_bytes(from_bytes(data, source='-')))"
    )
    data = to_bytes(make_model())
    reordered = make_model(state_dict=dict(reversed(make_model().state_dict.items())))
    assert to_bytes(reordered) == data
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
    assert done.stdout == data


def test_other_readers_of_safetensors_understand_the_file(tmp_path):
    from safetensors import safe_open

    (tmp_path / "style.safetensors").write_bytes(to_bytes(make_model()))
    with safe_open(tmp_path / "style.safetensors", framework="pt") as file:
        assert file.metadata()["format"] == FORMAT
        assert set(file.keys()) == set(make_model().state_dict)


def test_network_is_rebuilt_with_its_own_weights_and_no_random_draw():
    model = make_model()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    network = model.build_network()
    assert torch.equal(torch.get_rng_state(), before)
    assert not network.training
    original = TransformerNet(model.architecture)
    original.load_state_dict(model.state_dict)
    image_NCHW = torch.randn(1, 3, 20, 24)
    with torch.no_grad():
        assert torch.equal(network(image_NCHW), original(image_NCHW))
        network.stem.conv.weight.zero_()
    assert model.state_dict["stem.conv.weight"].abs().sum() > 0


def test_header_is_read_without_torch(tmp_path):
    (tmp_path / "m").write_bytes(to_bytes(make_model()))
    code = (
        "import sys, pathlib; from stylemill.style_file import read_header;"
        "h = read_header(pathlib.Path(sys.argv[1]).read_bytes(), source='m');"
        "assert 'torch' not in sys.modules; print(h.name, h.architecture['width'])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "m")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "starry 0.125\n"


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00" * 7, b"\x00" * 64, b"PK\x03\x04 a zip archive", b"\xff" * 100, to_bytes(make_model())[:300],
     (2).to_bytes(8, "little") + b"[]", (100_000).to_bytes(8, "little") + b"[" * 100_000],
)  # fmt: skip
def test_bytes_that_are_not_a_style_model(data):
    with pytest.raises(ConfigError, match=r"m\.bin.*not a style model") as caught:
        from_bytes(data, source="m.bin")
    assert caught.value.field == "model"


def test_safetensors_of_other_programs():
    import safetensors.torch

    with pytest.raises(ConfigError, match="not a style model"):
        from_bytes(safetensors.torch.save({"a": torch.zeros(1)}), source="m")
    foreign = safetensors.torch.save({"a": torch.zeros(1)}, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"another version of stylemill \(format 'pt'"):
        read_header(foreign, source="m")


def _without(key):
    def change(header):
        del header["__metadata__"][key]

    return change


def _with_architecture(text):
    def change(header):
        header["__metadata__"]["architecture"] = text

    return change


@pytest.mark.parametrize(
    "change",
    [_without("name"), _without("metadata"), _with_architecture("{"), _with_architecture("[]"),
     _with_architecture('{"width": 9}'),
     _with_architecture('{"width": 0.25}')],
)  # fmt: skip
def test_damaged_headers(change):
    with pytest.raises(ConfigError, match="style model"):
        from_bytes(tampered(to_bytes(make_model()), change), source="m")


def test_a_model_of_a_newer_version_says_so():
    newer = tampered(to_bytes(make_model()), _with_architecture('{"depth": 9}'))
    with pytest.raises(ConfigError, match=r"another version of stylemill \(unknown depth\); upgrade stylemill"):
        from_bytes(newer, source="m")


def test_damaged_weights():
    weights = make_model().state_dict
    broken = dict(weights, **{"stem.conv.bias": torch.full_like(weights["stem.conv.bias"], float("nan"))})
    with pytest.raises(ConfigError, match=r"stem\.conv\.bias holds values that are not finite"):
        from_bytes(to_bytes(make_model(state_dict=broken)), source="m")
    del broken["stem.conv.bias"]
    with pytest.raises(ConfigError, match="parameters are missing or unexpected"):
        from_bytes(to_bytes(make_model(state_dict=broken)), source="m")
    with pytest.raises(ConfigError, match="damaged"):
        from_bytes(to_bytes(make_model())[:-4], source="m")


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=r"absent.*does not exist"):
        load_style_model(FolderStore(tmp_path), "absent")


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_of_the_network_survives_a_file(name):
    network = variant_net(width=0.1, **VARIANTS[name])
    model = StyleModel(
        name="a", version="1", architecture=network.architecture, state_dict=network.state_dict(), metadata={}
    )
    loaded = from_bytes(to_bytes(model), source="test")
    assert loaded.architecture == network.architecture
    batch_NCHW = torch.randn(1, 3, 16, 20, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(loaded.build_network()(batch_NCHW), network(batch_NCHW))


def test_the_architecture_of_a_default_network_is_written_as_it_always_was():
    network = TransformerNet(Architecture(width=0.1))
    model = StyleModel(
        name="a", version="1", architecture=network.architecture, state_dict=network.state_dict(), metadata={}
    )
    assert b'"architecture": "{\\"upsampling\\": \\"nearest\\", \\"width\\": 0.1}"' in to_bytes(model)


@pytest.mark.parametrize("bad", ["../up", "..", ".", "a/b", "/etc", "", "a\0b", "a\x1b[2J", "a\nb"])
@pytest.mark.parametrize("field", ["name", "version"])
def test_names_that_cannot_name_a_folder_are_refused(field, bad):
    model = make_model()
    data = to_bytes(replace(model, **{field: bad}))
    for read in (read_header, from_bytes):
        with pytest.raises(ConfigError, match=f"has the {field}.*cannot name a folder"):
            read(data, source="stranger.safetensors")
