"""Checks of user input, each raising an `InputError` that names the field, the value and what is allowed."""

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Collection, Sequence
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal

from pocketvit.config.weights import Weights
from pocketvit.errors import InputError
from pocketvit.files import path_of
from pocketvit.usercode import REFERENCE, Code

LARGEST = 1_000_000
"""The largest number that a field takes, except seeds: beyond, it is a mistake whose effects would be hard to trace."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+,-]*")
"""Names become file names, so they contain only characters that are safe in shells and file systems."""

FEW = 12  # the most names that a message lists


def unknown(kind: str, name: object, known: Collection[str]) -> str:
    """The message for an unknown name, with the most similar known ones.

    These are the most similar one that contains the name's last part as a word (num-heads for heads), and the most
    similar one overall; without either, the one whose last part is the most similar.
    """
    text = str(name)
    last = _last_part(text)
    part = re.escape(last)
    holding = [each for each in known if part and re.search(rf"(?<![a-z0-9]){part}(?![a-z0-9])", each)]
    near = [
        *difflib.get_close_matches(text, holding, n=1, cutoff=0),
        *difflib.get_close_matches(text, list(known), n=1),
    ]
    if not near:
        nearest = difflib.get_close_matches(last, list(map(_last_part, known)), n=1)
        near = [each for each in known if _last_part(each) in nearest][:1]
    some = [*known][:FEW] + ["…"] * (len(known) > FEW)
    hint = f"did you mean {' or '.join(dict.fromkeys(near))}?" if near else f"known: {', '.join(some)}"
    return f"unknown {kind} {name!r}; {hint}"


def _last_part(name: str) -> str:
    """A dotted name's field, without the dashes of a flag."""
    return name.lstrip("-").rpartition(".")[2]


def describe_size(size: Sequence[int]) -> str:
    """An image size, (height, width), in a message: "14 × 12 pixels (width × height)", or "8 × 8 pixels" if square."""
    height, width = size
    return f"{width} × {height} pixels" + (" (width × height)" if width != height else "")


@dataclasses.dataclass(frozen=True)
class Bounds:
    """The interval of a number, as annotation of a field's type: `Annotated[float, Bounds(0, 1)]`."""

    low: float
    high: float = inf
    open_left: bool = False
    open_right: bool = False

    def __str__(self) -> str:
        if self.high == inf:
            return f"{'greater than' if self.open_left else 'at least'} {self.low}"
        return f"in {'(' if self.open_left else '['}{self.low}, {self.high}{')' if self.open_right else ']'}"

    def check(self, name: str, value: float) -> None:
        """Raise an `InputError` unless the value is in the interval; NaN is in none."""
        above = self.low < value if self.open_left else self.low <= value
        if not (above and (value < self.high if self.open_right else value <= self.high)):
            raise InputError(f"{name}={value}: must be {self}")


Positive = Annotated[float, Bounds(0, open_left=True)]
NotNegative = Annotated[float, Bounds(0)]
Probability = Annotated[float, Bounds(0, 1)]
Fraction = Annotated[float, Bounds(0, 1, open_right=True)]
"""A fraction less than the whole, or the decay rate of a running mean."""
Natural = Annotated[int, Bounds(0)]
Count = Annotated[int, Bounds(1)]
Seed = Annotated[int, Bounds(0, 2**63, open_right=True)]


def plain(value: Any) -> Any:
    """NumPy scalars and arrays as Python values, also in lists and tuples; all else unchanged."""
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value))
    return value.tolist() if type(value).__module__ == "numpy" and hasattr(value, "tolist") else value


def check_types(section: str, config: Any) -> None:
    """Convert every field to its annotated type; raise an `InputError` if that fails or it is out of bounds."""
    hints = typing.get_type_hints(type(config), include_extras=True)
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        fitting = _fit(f"{section}.{item.name}".lstrip("."), plain(value), hints[item.name])
        if fitting is not value:
            object.__setattr__(config, item.name, fitting)


def _fit(name: str, value: Any, hint: Any) -> Any:
    """`value` as the type `hint`: lists become tuples; text becomes numbers (YAML reads 1e-3 as text), paths and code."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    if value is None and type(None) in options:
        return None
    if Weights in options:
        return value if isinstance(value, Weights) else _weights(name, value)
    if Code in options:
        return _name_or_code(name, value, typing.get_args(options[0]))
    if any(value in typing.get_args(option) for option in options[:-1] if typing.get_origin(option) is Literal):
        return value
    kind = next(option for option in reversed(options) if option is not type(None))
    bounds = None
    if typing.get_origin(kind) is Annotated:
        kind, bounds = typing.get_args(kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        if value in arguments:
            return value
        raise InputError(f"{name}={value!r}: must be one of {', '.join(map(str, arguments))}")
    if origin is tuple and isinstance(value, list | tuple):
        inner = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(inner) == len(value):
            return tuple(_fit(name, item, part) for item, part in zip(value, inner, strict=True))
    elif kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        number = _number(value)
        if number is not None:
            return _within_bounds(name, number, bounds)
    elif kind is Path and isinstance(value, str | Path):
        if "\0" in str(value):
            raise InputError(f"{name}={str(value)!r}: is no path, as it has a zero byte")
        return path_of(value)
    elif kind is int and type(value) is int:
        return _within_bounds(name, value, bounds)
    elif origin is None and type(value) is kind:
        return value
    raise InputError(f"{name}={value!r}: must be {_wanted(kind)}" + (" or none" if len(options) > 1 else ""))


def _wanted(kind: Any) -> str:
    """The type `kind` in a message."""
    if typing.get_origin(kind) is not tuple:
        return f"of type {kind.__name__}"
    *items, last = typing.get_args(kind)
    if last is not Ellipsis:
        return f"a list of {len(items) + 1} numbers"
    choices = typing.get_args(items[0])
    return (
        f"a list, each one of {', '.join(choices)}" if typing.get_origin(items[0]) is Literal else "a list of numbers"
    )


def _number(value: float | str) -> float | None:
    """`value` as a float; None for text that is not a number."""
    try:
        return float(value)
    except ValueError:
        return None
    except OverflowError:  # an integer beyond every float
        return float("inf")


def _within_bounds(name: str, value: float, bounds: Bounds | None) -> float:
    """`value`, unless it is out of bounds, infinite, not a number, or beyond `LARGEST` when the bounds are not."""
    bounds = bounds or Bounds(-inf)
    if not (-LARGEST <= value <= LARGEST or (abs(value) < inf and bounds.high < inf)):
        raise InputError(f"{name}={value}: must be a number within ±{LARGEST}")
    bounds.check(name, value)
    return value


def _name_or_code(name: str, value: Any, built_in: tuple[str, ...]) -> str | Code:
    """`value` if it names a built-in part or is code; the code of a reference is read, but not run."""
    if value in built_in or isinstance(value, Code):
        return value
    if isinstance(value, str) and REFERENCE.fullmatch(value):
        try:
            return Code.read(value)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
    raise InputError(f"{name}={value!r}: must be one of {', '.join(built_in)}, or FILE.py:NAME")


def _weights(name: str, value: Any) -> Weights:
    """The trained model in a run folder or file."""
    if not isinstance(value, str | Path):
        raise InputError(
            f"{name}={value!r}: must be the folder of a finished run, a file of weights, hf:OWNER/NAME, or none"
        )
    try:
        return Weights.find(value)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def check_name(kind: str, name: Any) -> None:
    """Raise an `InputError` unless the name is safe as the name of a file or folder."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InputError(
            f"{kind} {name!r}: is used in file names, so it must begin with a letter or digit and contain only letters, "
            "digits and . _ = + , -"
        )
