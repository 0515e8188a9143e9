"""List and override fields by their dotted names."""

import dataclasses
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any

from pocketvit.config.checks import unknown
from pocketvit.config.run import RunConfig
from pocketvit.config.weights import Weights
from pocketvit.errors import InputError
from pocketvit.usercode import Code


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Every field of a config by its dotted name, in order."""
    flat = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            flat |= flatten(value, f"{prefix}{item.name}.")
        else:
            flat[prefix + item.name] = value
    return flat


def field_types(config: type, prefix: str = "") -> dict[str, Any]:
    """The annotated type of every field of a config and its sections, by dotted name, in order."""
    found: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(config, include_extras=True).items():
        section = isinstance(hint, type) and dataclasses.is_dataclass(hint)
        found |= field_types(hint, f"{prefix}{name}.") if section else {prefix + name: hint}
    return found


def code_fields(config: type) -> frozenset[str]:
    """The dotted names of the fields that take user-defined code."""
    return fields_of(config, Code)


@cache
def fields_of(config: type, kind: type) -> frozenset[str]:
    """The dotted names of the fields that take a kind of value."""

    def takes(hint: Any) -> bool:
        return hint is kind or any(map(takes, typing.get_args(hint)))

    return frozenset(name for name, hint in field_types(config).items() if takes(hint))


REPLACED = {"schedule.warmup_passes": "schedule.warmup_frac", "schedule.passes": "schedule.time_budget"}
"""Fields that say the same in another way: a new value of the first takes the place of the second."""


def override(config: RunConfig, values: Mapping[str, object]) -> RunConfig:
    """A copy of `config` with new values for some fields, by dotted name.

    New values also take the place of those of other fields (`REPLACED`).

    Args:
        config: stays as it is.
        values: by dotted name, such as `{"optim.lr": 2e-3}`.
    Raises:
        InputError: an unknown name (with the nearest one), or a value that its field refuses.
    """
    known = flatten(config)
    values = {REPLACED[name]: None for name in REPLACED if name in values} | dict(values)
    sections: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        if name not in known:
            raise InputError(unknown("field", name, known))
        section, _, leaf = name.rpartition(".")
        sections.setdefault(section, {})[leaf] = value
    top = sections.pop("", {})
    for section, changes in sections.items():
        top[section] = dataclasses.replace(getattr(config, section), **changes)
    return dataclasses.replace(config, **top)


def code_of(config: Any) -> dict[str, Code]:
    """The user-defined code in a config or in one of its sections, by dotted name."""
    return {name: value for name, value in flatten(config).items() if isinstance(value, Code)}


def weights_of(config: RunConfig) -> dict[str, Weights]:
    """The trained models in a config, by dotted name."""
    return {name: value for name, value in flatten(config).items() if isinstance(value, Weights)}
