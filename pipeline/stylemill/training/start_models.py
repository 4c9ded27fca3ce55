"""The style models that a training needs: the one to start from or to add styles to, and the teacher."""

from __future__ import annotations

from stylemill.errors import ConfigError, config_errors_for
from stylemill.nn.architecture import Architecture
from stylemill.registry import locate_model
from stylemill.storage import Storage
from stylemill.storage.user_errors import reading_input
from stylemill.style_file import (
    FORBIDDEN_IN_NAMES,
    PHOTO,
    can_be_one_of_several,
    read_file,
    read_header,
    read_style,
    split_styles,
)
from stylemill.style_model import from_bytes
from stylemill.training.config import BUILTIN, SCRATCH, TrainConfig
from stylemill.training.start_network import builtin_start


def read_model(storage: Storage, field: str, uri: str | None, registry: str | None) -> bytes | None:
    """Return the file of the style model that a field names; None if it names none.

    Raises:
        ConfigError: there is none, it is not a style model, or it holds several and none is chosen.
    """
    if uri is None:
        return None
    with config_errors_for(field, value=uri, keep=("registry",)):
        data = read_style(storage, locate_model(storage, uri, registry))
        from_bytes(data, source=uri)
    return data


def read_start(storage: Storage, config: TrainConfig) -> tuple[bytes | None, tuple[str, ...]]:
    """Return the file of the model to start from, None for random numbers, and warnings about the architecture.

    Raises:
        ConfigError: the model cannot be read, or the config asks for another architecture than it has.
    """
    if config.add_to is not None:
        return _read_network(storage, config, config.add_to), ()
    if config.start == SCRATCH:
        return None, ()
    is_builtin = config.start == BUILTIN
    try:
        start = builtin_start() if is_builtin else read_model(storage, "start", config.start, config.registry)
    except ConfigError as error:
        cure = f"{error.cure}, or write {BUILTIN} or {SCRATCH}"
        raise ConfigError(error.field, error.value, error.problem, cure) from error
    assert start is not None
    model = Architecture.from_mapping(read_header(start, source=config.start).architecture)
    if len(config.style_names) > 1 and model.norm != "instance":
        cure = "start from a network of instance norms"
        raise ConfigError("start", config.start, f"has {model.norm} norms, which several styles cannot share", cure)
    adopted = []
    for name in ("width", "upsampling", "norm", "residual"):
        asked, has = getattr(config, name), getattr(model, name)
        if asked == has:
            continue
        if is_builtin:
            problem = f"the built-in start network has {name} {has}, not {asked}"
            return None, (f"{problem}: training starts from random numbers and needs several times the steps",)
        if asked != getattr(TrainConfig, name):
            cure = f"leave it out to take {has}, or start without those weights"
            raise ConfigError(name, asked, f"differs from the style model to start from, which has {has}", cure)
        adopted.append(f"{name} {has}")
    note = f"the network adopts {', '.join(adopted)} from the style model that it starts from"
    return start, (note,) * bool(adopted)


def _read_network(storage: Storage, config: TrainConfig, uri: str) -> bytes:
    """Return the file of the styles to which others are added.

    Raises:
        ConfigError: it is not a style model, has other norms than instance norms or one of the new names, or the config
            asks for another network.
    """
    with config_errors_for("add_to", value=uri, keep=("registry",)), reading_input("add_to", uri, expected="a model"):
        data = read_file(storage, locate_model(storage, uri, config.registry))
        singles = split_styles(data, source=uri)
        headers = [read_header(single, source=uri) for single in singles]
        from_bytes(singles[0], source=uri)
    for name in config.style_names:
        if any(name == header.name for header in headers):
            cure = "give another --name, or drop that style first: stylemill models drop"
            if name == PHOTO and config.with_photo:
                cure = "leave --with-photo out"
            raise ConfigError("name", name, f"is a style of {uri} already", cure)
    for name in (*config.style_names, *(header.name for header in headers)):
        if not can_be_one_of_several(name):
            problem = f"cannot be one of several: they have no {' '.join(FORBIDDEN_IN_NAMES)} in their names"
            raise ConfigError("name", name, problem, "give another name: --name, or stylemill models rename")
    model = Architecture.from_mapping(headers[0].architecture)
    if model.norm != "instance":
        raise ConfigError("add_to", uri, f"has {model.norm} norms", "styles can share networks of instance norms alone")
    for name in ("width", "upsampling", "norm", "residual"):
        asked, has = getattr(config, name), getattr(model, name)
        if asked not in (has, getattr(TrainConfig, name)):
            raise ConfigError(name, asked, f"differs from the network in add_to, which has {has}", "leave it out")
    return data
