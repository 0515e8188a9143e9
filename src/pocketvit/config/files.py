"""A config as plain mappings, and as the file `config.yaml` of a run folder."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pocketvit.config.hashing import SCHEMA_VERSION
from pocketvit.config.names import code_fields, code_of, flatten, override
from pocketvit.config.run import RunConfig
from pocketvit.errors import InputError
from pocketvit.files import path_of, write_atomically
from pocketvit.usercode import Code, resolve, save_copies


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The config as plain nested mappings that YAML and JSON can hold, with the schema version.

    Code becomes a reference to the copy that `save_config` makes of it.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, tuple):
            return list(value)
        if isinstance(value, Code):
            return value.copied
        return str(value) if isinstance(value, Path) else value

    return plain(dataclasses.asdict(config)) | {"schema": SCHEMA_VERSION}


def from_dict(
    mapping: Mapping[str, Any], *, folder: Path = Path(), where: str = "config", allow_code: bool = False
) -> RunConfig:
    """The config that `to_dict` wrote; fields left out take their defaults.

    Args:
        folder: that it was found in; code is taken from there and nowhere else.
        where: names the config in messages.
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
    return override(RunConfig(), values)


def _by_dotted_name(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The values of fields that stand below their sections; a section with nothing below it sets none.

    Raises:
        InputError: a section that is no section, or a field twice.
    """
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
            raise InputError(f"{twice[0]} stands twice; keep one")
        values |= found
    return values


def save_config(config: RunConfig, path: Path) -> None:
    """Write `config.yaml`, and the files of the code that it names into code/ beside it.

    Raises:
        InputError: two different files of code have the same name, or a file cannot be written.
    """
    import yaml

    save_copies(code_of(config).values(), path.parent)
    write_atomically(path, yaml.safe_dump(to_dict(config), sort_keys=False).encode())


def load_config(path: str | Path, *, allow_code: bool = False) -> RunConfig:
    """Read a saved `config.yaml`.

    Args:
        allow_code: agree to run the code that it names, which must lie in the same folder.
    Raises:
        InputError: no such file, not YAML, not a config, or code without consent.
    """
    from pocketvit.config.yaml_text import read_yaml  # late, as yaml itself is

    path = path_of(path)
    mapping = read_yaml(path, "config")
    if not isinstance(mapping, Mapping):
        raise InputError(f"config {path} holds no fields; expected the mapping that a run folder's config.yaml has")
    return from_dict(mapping, folder=path.parent, where=str(path), allow_code=allow_code)
