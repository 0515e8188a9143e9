"""Tables of docs/configuration.md: every field of a run, from the classes in `pocketvit.config`."""

import ast
import inspect
import textwrap
import typing
from dataclasses import fields, is_dataclass
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Literal

from pocketvit.config import RunConfig, field_types, flatten
from pocketvit.config.checks import Bounds
from pocketvit.config.weights import Weights
from pocketvit.tables import markdown_table
from pocketvit.usercode import Code

KINDS = {int: "whole number", float: "number", str: "text", Path: "path", bool: "`True` or `False`"}
SECTIONS = ["run"] + [item.name for item in fields(RunConfig) if is_dataclass(item.default_factory)]
"""Of a run; "run" is for the fields outside all sections."""


def fields_table(section: str) -> str:
    """The fields of a section, or with "run" those outside all sections."""
    prefix = "" if section == "run" else f"{section}."
    config = RunConfig() if section == "run" else getattr(RunConfig(), section)
    defaults, described = flatten(RunConfig()), docstrings(type(config))
    rows = [
        {
            "field": f"`{name}`",
            "values": values(hint),
            "default": _shown(defaults[name]),
            "what it is": described[name.removeprefix(prefix)].replace("<", "&lt;"),
        }
        for name, hint in field_types(RunConfig).items()
        if name.rpartition(".")[0] == prefix.removesuffix(".")
    ]
    return markdown_table(rows, list(rows[0]))


def docstrings(config: type) -> dict[str, str]:
    """The docstring of each field of a class."""
    body = ast.parse(textwrap.dedent(inspect.getsource(config))).body[0].body
    pairs = zip(body, body[1:])
    return {
        field.target.id: " ".join(below.value.value.split())
        for field, below in pairs
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr)
    }


def values(hint: Any) -> str:
    """The values of a field of this type, in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return f"{values(inner[0])} {_range(inner[1])}"
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in inner)
    if origin is tuple:
        if inner[1] is not Ellipsis:
            return "two " + _plural(values(inner[0]))
        return (
            f"any of {values(inner[0])}"
            if typing.get_origin(inner[0]) is Literal
            else f"any {_plural(values(inner[0]))}"
        )
    if inner:
        return " or ".join(map(values, inner))
    return {Code: "`FILE.py:NAME`", Weights: "run folder or model file", type(None): "none", **KINDS}[hint]


def _range(bounds: Bounds) -> str:
    signs = {"at least": "≥", "greater than": ">", str(2**63): "2⁶³"}
    return reduce(lambda text, words: text.replace(words, signs[words]), signs, str(bounds))


def _plural(words: str) -> str:
    return words.replace("number", "numbers", 1)


def _shown(value: Any) -> str:
    """A default as on the command line."""
    if isinstance(value, tuple) and value:
        return " ".join(f"{item:.4g}" if isinstance(item, float) else str(item) for item in value)
    return "none" if value in (None, ()) else str(value)
