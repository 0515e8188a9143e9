"""Convert a config to plain mappings, and to and from `config.yaml`."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pocketvit.config.hashing import SCHEMA_VERSION
from pocketvit.config.names import code_fields, code_of, fields_of, flatten, override, weights_of
from pocketvit.config.run import RunConfig
from pocketvit.config.weights import Weights, save_weights
from pocketvit.errors import InputError
from pocketvit.files import path_of, write_atomically
from pocketvit.usercode import Code, resolve, save_copies


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The config as nested mappings for YAML and JSON, with the schema version.

    Code and trained models become references to the copies that `save_config` makes of them.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, tuple):
            return list(value)
        if isinstance(value, Code | Weights):
            return value.copied
        return str(value) if isinstance(value, Path) else value

    return plain(dataclasses.asdict(config)) | {"schema": SCHEMA_VERSION}


def from_dict(
    mapping: Mapping[str, Any], *, folder: Path = Path(), where: str = "config", allow_code: bool = False
) -> RunConfig:
    """The config that `to_dict` wrote; fields left out take their defaults.

    Args:
        folder: of the config; code is only read from there, and a model's relative path is relative to it.
        where: name of the config in messages.
        allow_code: agree to run the code that it names.
    Raises:
        InputError: not a config, an unknown field, a wrong value, a newer schema, or code without consent.
    """
    values = _by_dotted_name(mapping)
    schema = values.pop("schema", SCHEMA_VERSION)
    if schema != SCHEMA_VERSION:
        raise InputError(f"config has schema {schema}; this version reads {SCHEMA_VERSION}")
    fields = code_fields(RunConfig)
    values = resolve(values, fields=fields, folder=folder, where=where, allow_code=allow_code, inside=True)
    for name in fields_of(RunConfig, Weights) & values.keys():
        if isinstance(values[name], str):
            values[name] = Weights.find(values[name], folder)
    return override(RunConfig(), values)


def _by_dotted_name(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The values of nested fields by dotted name; an empty section sets none."""
    sections = {name.partition(".")[0]: name for name in reversed(flatten(RunConfig())) if "." in name}
    values: dict[str, Any] = {}
    for key, item in mapping.items():
        if isinstance(item, Mapping):
            found = {f"{key}.{leaf}": value for leaf, value in item.items()}
        elif key not in sections:
            found = {str(key): item}
        elif item is None:
            found = {}
        else:
            example = sections[key].rpartition(".")[2]
            raise InputError(f"{key}={item!r} is a section; write its fields below it, such as {example}: …")
        if twice := sorted(found.keys() & values.keys()):
            raise InputError(f"{twice[0]} is set twice; remove one")
        values |= found
    return values


def save_config(config: RunConfig, path: Path) -> None:
    """Write `config.yaml`, and copies of the code and the models that it names into code/ and weights/ beside it.

    Raises:
        InputError: two different files of code have the same name, a model has changed, or a file cannot be written.
    """
    import yaml

    save_copies(code_of(config).values(), path.parent)
    save_weights(weights_of(config).values(), path.parent)
    write_atomically(path, yaml.safe_dump(to_dict(config), sort_keys=False).encode())


def load_config(path: str | Path, *, allow_code: bool = False) -> RunConfig:
    """Read a saved `config.yaml`.

    Args:
        path: of the file.
        allow_code: agree to run the code that it names, which must be in the same folder.
    Raises:
        InputError: no such file, not YAML, not a config, or code without consent.
    """
    from pocketvit.config.yaml_text import read_yaml  # late, as yaml itself is

    path = path_of(path)
    mapping = read_yaml(path, "config")
    if not isinstance(mapping, Mapping):
        raise InputError(f"config {path} contains no fields; expected a mapping as in a run folder's config.yaml")
    return from_dict(mapping, folder=path.parent, where=str(path), allow_code=allow_code)
