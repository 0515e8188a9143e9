"""Study files: YAML that says which runs to make and which rows to compare.

    recipe: paper                                 # what every row starts from
    base: {schedule.passes: 60}                   # overrides for every row
    seeds: 3                                      # or a list, [0, 1, 2]
    baseline: paper                               # every other row is compared with this one,
    compare: {mla-q-lion: mla-q, slow: null}      # except these: with another row, or with none
    rows:
      paper: {seeds: 5}                           # a row may have its own seeds
      mla-q: {model.q_rank: 64}
      mla-q-lion: {inherit: mla-q, optim.name: lion}
      rank: {grid: {model.k_rank: [32, 64], model.v_rank: [32, 64]}}
      longer: {init_from: {run_of: paper}}        # starts from the model of an earlier row with the same seed

A row with a grid is a template for one row per combination, named `rank-k_rank=32-v_rank=64`. If it is named like its
first field, that name is not repeated (`k_rank=32-v_rank=64`).

Everything is checked when the file is read, including the configuration of every row: a study that loads can be run.
"""

import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pocketvit.config import RunConfig, code_fields, flatten, override, weights_of
from pocketvit.config.checks import check_name, plain, unknown
from pocketvit.config.names import fields_of
from pocketvit.config.weights import RunOf, Weights
from pocketvit.config.yaml_text import read_yaml
from pocketvit.errors import InputError
from pocketvit.recipes import recipe
from pocketvit.studies.definition.grid import Row, Study
from pocketvit.usercode import Code, resolve

STUDY_KEYS = ("name", "recipe", "base", "seeds", "baseline", "compare", "rows")
ROW_KEYS = ("inherit", "grid", "seeds")  # keys of a row that are not overrides

MOST_RUNS = 10_000  # of a study; more could only be a slip
MOST_ANCESTORS = 50  # of a row

SET_ELSEWHERE = {
    "seed": "use seeds",
    "recipe": "use the study's recipe",
    "out": "the runner chooses it",
    "schedule.time_budget": "runs would not be comparable, use schedule.passes",
}
"""Fields that a row cannot override, and why."""


def load_study(path: Path, *, allow_code: bool = False) -> Study:
    """Read a study file. Without a `name`, the study is named like the file.

    Args:
        path: of the file; paths of code in it are relative to its folder.
        allow_code: agree to run that code.
    Raises:
        InputError: no such file, not YAML, a study that cannot be run, or code without consent.
    """
    content = read_yaml(path, "study")
    fields, where = code_fields(RunConfig), f"study {path}"
    content = resolve(content, fields=fields, folder=path.parent, where=where, allow_code=allow_code, inside=False)
    return parse_study(content, path.stem.replace("_", "-"))


def parse_study(content: Any, name: str) -> Study:
    """The study that a file's content describes.

    Args:
        content: the parsed YAML.
        name: of the study, if the content gives none.
    Raises:
        InputError: a study that cannot be run; names the row or field and, for an unknown name, the nearest one.
    """
    if isinstance(content, Mapping):
        name = content.get("name", name)
    try:
        check_name("name", name)
        return _parse(_mapping("the file", content), name)
    except InputError as error:
        raise InputError(f"study {name}: {error}") from error


def _parse(content: Mapping[str, Any], name: str) -> Study:
    for key in content:
        _check_known("key", key, STUDY_KEYS)
    if not isinstance(content.get("recipe"), str):
        raise InputError(f"recipe={content.get('recipe')!r}: give the recipe that the rows start from")
    written = {row: _mapping(f"row {row!r}", values) for row, values in _mapping("rows", content.get("rows")).items()}
    if not written:
        raise InputError("rows is empty; a study needs at least one row, such as `baseline: {}`")
    start = recipe(content["recipe"])
    base = _overrides("base", content.get("base"), start)
    seeds = _seeds("seeds", content.get("seeds", 1))
    expanded: dict[str, list[Row]] = {}
    num_runs = 0
    for row in written:
        expanded[row] = _expand(row, written, seeds, base, start)
        num_runs += sum(len(each.seeds) for each in expanded[row])
        _check_runs(f"rows up to {row!r}", num_runs)
    rows = tuple(itertools.chain.from_iterable(expanded.values()))
    _check_distinct(rows)
    _check_starts(rows)
    return Study(name=name, recipe=content["recipe"], base=base, rows=rows, compare=_compare(content, expanded))


def _expand(
    name: str, written: Mapping[str, Any], seeds: tuple[int, ...], base: Mapping[str, Any], start: RunConfig
) -> list[Row]:
    """The row, or the rows of its grid."""
    where = f"row {name!r}"
    check_name("row", name)
    overrides = _inherited(name, written, start)
    if "seeds" in written[name]:
        seeds = _seeds(f"{where}: seeds", written[name]["seeds"])
    rows = []
    for suffix, choice in _combinations(where, written[name], start):
        values = overrides | choice
        full = suffix[1:] if suffix.startswith(f"-{name}=") else name + suffix
        check_name("row", full)
        try:
            config = override(start, {**base, **values})
        except InputError as error:
            raise InputError(f"row {full!r}: {error}") from error
        rows.append(Row(name=full, overrides=values, seeds=seeds, config=config))
    return rows


def _inherited(name: str, written: Mapping[str, Any], start: RunConfig) -> dict[str, Any]:
    """The overrides of a row on top of those it inherits; seeds are not inherited."""
    line = [name]
    while (parent := written[line[-1]].get("inherit")) is not None:
        where = f"row {line[-1]!r}: inherit: "
        _check_known("row", parent, list(written), where)
        if parent in line:
            raise InputError(f"row {name!r}: inherits from itself: {' -> '.join([*line, parent])}")
        if "grid" in written[parent]:
            raise InputError(f"{where}{parent!r} is a grid; inherit from a row without a grid")
        line.append(parent)
        if len(line) > MOST_ANCESTORS:
            raise InputError(f"row {name!r}: inherits through more than {MOST_ANCESTORS} rows")
    merged: dict[str, Any] = {}
    for ancestor in reversed(line):
        values = {key: value for key, value in written[ancestor].items() if key not in ROW_KEYS}
        merged |= _overrides(f"row {ancestor!r}", values, start, ROW_KEYS)
    return merged


def _combinations(where: str, row: Mapping[str, Any], start: RunConfig) -> list[tuple[str, dict[str, Any]]]:
    """Name suffix and overrides for every combination of the row's grid; without a grid, one empty combination."""
    grid = _overrides(f"{where}: grid", row.get("grid"), start)
    for field, values in grid.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"{where}: grid: {field}={values!r}: must be a list of values")
        if field in row:
            raise InputError(f"{where}: {field} is both in the row and in its grid; remove one")
    _check_runs(f"{where}: grid", math.prod(map(len, grid.values())))
    leaves = [field.rpartition(".")[2] for field in grid]
    labels = [leaf if leaves.count(leaf) == 1 else field for leaf, field in zip(leaves, grid, strict=True)]
    found = []
    for values in itertools.product(*grid.values()):
        suffix = "".join(f"-{label}={_label(value)}" for label, value in zip(labels, values, strict=True))
        found.append((suffix, dict(zip(grid, values, strict=True))))
    return found


def _label(value: Any) -> str:
    """A value as part of a row's name."""
    if isinstance(value, list):
        return ",".join(map(_label, value))
    if isinstance(value, Code):
        return value.name
    return "none" if value is None else re.sub(r"[^A-Za-z0-9._+-]", "_", str(value))


def _compare(content: Mapping[str, Any], expanded: Mapping[str, list[Row]]) -> dict[str, str]:
    """The row each row is compared with; on the left, a grid's name stands for all its rows."""
    known = [row.name for rows in expanded.values() for row in rows]
    pairs: dict[str, str | None] = {}
    baseline = content.get("baseline")
    if baseline is not None:
        _check_known("row", baseline, known, "baseline: ")
        pairs = {name: baseline for name in known if name != baseline}
    for left, reference in _mapping("compare", content.get("compare")).items():
        _check_known("row", left, [*expanded, *known], "compare: ")
        if reference is not None:
            _check_known("row", reference, known, f"compare: {left}: ")
        if left == reference:
            raise InputError(f"compare: row {left!r} is compared with itself; name another row, or null for none")
        names = [row.name for row in expanded[left]] if left in expanded else [left]
        pairs |= {name: reference for name in names if name != reference}
    return {name: reference for name in known if (reference := pairs.get(name)) is not None}


# ---------------------------------------------------------------- checks


def _mapping(where: str, value: Any) -> Mapping[str, Any]:
    """`value` if it is a mapping with text keys; None (a bare `row:`) is an empty mapping."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: {value!r} is not a mapping; write `name: value` pairs")
    for key in value:
        if not isinstance(key, str):
            raise InputError(f"{where}: YAML reads the name {key!r} as a {type(key).__name__}; put it in quotes")
    return value


def _overrides(where: str, value: Any, start: RunConfig, also: tuple[str, ...] = ()) -> dict[str, Any]:
    """Overrides with known field names; `also` are other keys to suggest."""
    known = flatten(start)
    values = _mapping(where, value)
    for field in values:
        if field in SET_ELSEWHERE:
            raise InputError(f"{where}: {field} cannot be set here; {SET_ELSEWHERE[field]}")
        _check_dotted(where, field, values[field], known)
        _check_known("field", field, [*known, *also], f"{where}: ")
    return {field: _run_of(field, plain(value)) for field, value in values.items()}


def _run_of(field: str, value: Any) -> Any:
    """`value`, unless it refers to the model of a row: `{run_of: ROW}`."""
    refers = field in fields_of(RunConfig, Weights) and isinstance(value, Mapping) and list(value) == ["run_of"]
    return RunOf(str(value["run_of"])) if refers else value


def _seeds(where: str, value: Any) -> tuple[int, ...]:
    """The seeds of a list, or of a count from 0."""
    value = plain(value)
    _check_runs(where, value if type(value) is int else len(value) if isinstance(value, list) else 0)
    listed = list(range(value)) if type(value) is int else value
    if not isinstance(listed, list) or not listed or any(type(seed) is not int or seed < 0 for seed in listed):
        raise InputError(f"{where}={value!r}: must be a count of at least 1 or a list of whole numbers from 0")
    twice, count = Counter(listed).most_common(1)[0]
    if count > 1:
        raise InputError(f"{where}={value!r}: seed {twice} is listed twice; a second run of it would be the same")
    return tuple(listed)


def _check_runs(where: str, count: int) -> None:
    if count > MOST_RUNS:
        raise InputError(f"{where} would make {count:,} runs; a study takes at most {MOST_RUNS:,}")


def _check_known(kind: str, name: Any, known: Sequence[str], where: str = "") -> None:
    if name not in known:
        raise InputError(where + unknown(kind, str(name), known))


def _check_dotted(where: str, name: str, value: Any, known: Collection[str]) -> None:
    """Refuse a section with nested fields, the form of config.yaml."""
    if isinstance(value, Mapping) and value and any(field.startswith(f"{name}.") for field in known):
        leaf, inner = next(iter(value.items()))
        written = f"{name}.{leaf}: {json.dumps(inner, default=str)}"  # what JSON writes, YAML reads
        raise InputError(f"{where}: {name} is a section; write its fields by their dotted names, such as {written}")


def _check_starts(rows: tuple[Row, ...]) -> None:
    """Refuse to start from the model of a row that is unknown, comes later or lacks a seed."""
    earlier: dict[str, Row] = {}
    for row in rows:
        for field, weights in weights_of(row.config).items():
            if isinstance(weights, RunOf):
                where = f"row {row.name!r}: {field}: run_of: "
                _check_known("earlier row", weights.row, list(earlier), where)
                if lacking := set(row.seeds) - set(earlier[weights.row].seeds):
                    raise InputError(f"{where}{weights.row!r} has no seed {min(lacking)}; give both the same seeds")
        earlier[row.name] = row


def _check_distinct(rows: tuple[Row, ...]) -> None:
    """Refuse equal names and equal configurations: equal runs would make the spread over seeds look too small."""
    names: set[str] = set()
    configs: dict[RunConfig, str] = {}
    for row in rows:
        if row.name in names:
            raise InputError(f"two rows are named {row.name!r}; rename one")
        names.add(row.name)
        if row.config in configs:
            raise InputError(f"rows {configs[row.config]!r} and {row.name!r} are the same run; remove one")
        configs[row.config] = row.name
