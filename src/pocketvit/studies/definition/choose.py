"""Choosing a study by name or file, with other seeds or data, or only some of its rows."""

import fnmatch
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pocketvit.config import override
from pocketvit.config.checks import Bounds, unknown
from pocketvit.errors import InputError
from pocketvit.files import path_of
from pocketvit.studies.definition.grid import Row, Study
from pocketvit.studies.definition.study_file import MOST_RUNS, load_study

BUILTIN = Path(__file__).parent / "builtin"


def builtin_studies() -> list[str]:
    """The names of the studies that come with the package."""
    return sorted(path.stem for path in BUILTIN.glob("*.yaml"))


def find_study(name: str | Path, *, allow_code: bool = False) -> Study:
    """A built-in study by its name, or any study by its file.

    Args:
        name: of the study, or the path of its file.
        allow_code: agree to run the code that the file names.
    Raises:
        InputError: neither, or a file that cannot be run.
    """
    if Path(name).suffix in (".yaml", ".yml") or Path(name).is_file():
        return load_study(path_of(name), allow_code=allow_code)
    name = str(name)
    if name not in builtin_studies():
        raise InputError(f"{unknown('study', name, builtin_studies())} (or give a .yaml file)")
    return load_study(BUILTIN / f"{name}.yaml")


def with_seeds(study: Study, num_seeds: int) -> Study:
    """The study with `num_seeds` seeds in every row, from 0.

    Raises:
        InputError: fewer than one, or more runs than a study takes.
    """
    Bounds(1, MOST_RUNS // len(study.rows)).check("seeds", num_seeds)
    return replace(study, rows=tuple(replace(row, seeds=tuple(range(num_seeds))) for row in study.rows))


def with_data(study: Study, source: str | None, resize: int | None = None) -> Study:
    """The study on another data set or image size, except for rows that set their own."""
    wanted = {"data.source": source, "data.resize": resize}

    def values(row: Row) -> dict[str, object]:
        return {name: value for name, value in wanted.items() if value is not None and name not in row.overrides}

    rows = (replace(row, config=override(row.config, values(row))) for row in study.rows)
    return replace(study, rows=tuple(rows))


def chosen_rows(study: Study, patterns: Sequence[str]) -> set[str]:
    """The rows that patterns match; a pattern may be several names separated by commas, and contain * and ?.

    Names of grid rows may contain commas themselves, so the longest matching name counts.

    Raises:
        InputError: a name that matches no row.
    """
    names = [row.name for row in study.rows]
    chosen: set[str] = set()
    for parts in (pattern.split(",") for pattern in patterns):
        while parts:
            for length in range(len(parts), 0, -1):
                matching = fnmatch.filter(names, ",".join(parts[:length]))
                if matching:
                    break
            else:
                raise InputError(f"study {study.name}: {unknown('row', parts[0], names)}")
            chosen |= set(matching)
            parts = parts[length:]
    return chosen
