"""Jobs: the cells of a study as runs to make, with their names and files.

A cell's key is `<config hash>-s<seed>`, where the hash covers the configuration and the data. A study's folder holds

    <key>/                   the run folder, as in any training
    cells/<key>/config.yaml  the configuration it was started with
    cells/<key>/log.txt      its output
    cells/<key>/failure.txt  why it failed, if it did
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from pocketvit.config import DataConfig, override, weights_of
from pocketvit.config.hashing import earlier_hashes
from pocketvit.config.weights import RunOf, Weights
from pocketvit.errors import InputError
from pocketvit.runs.result import RunResult, find_results
from pocketvit.studies.definition.grid import Cell, Study

Fingerprints = Callable[[DataConfig], str]  # from a data configuration to the fingerprint of its data


@dataclass(frozen=True, kw_only=True)
class Job:
    """A cell of a study, to be run in the study's folder."""

    cell: Cell
    key: str  # `Cell.key`, the name of its run folder
    earlier_keys: tuple[str, ...] = ()
    """What the key was before each revision of what the cell computes, the latest first."""
    waits_for: tuple[str, ...] = ()  # rows whose models it starts or learns from, and which are not finished
    out: Path  # the study's folder
    track: tuple[str, str] | None = None  # experiment tracker, and the group of the row's runs there

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.out / self.key

    @property
    def config_file(self) -> Path:
        """The configuration it is started with."""
        return self.out / "cells" / self.key / "config.yaml"

    @property
    def log(self) -> Path:
        """The file of its output."""
        return self.config_file.with_name("log.txt")

    @property
    def failure(self) -> Path:
        """The file that says in one line why it failed; absent unless it did."""
        return self.config_file.with_name("failure.txt")


def study_jobs(study: Study, out: Path, fingerprints: Fingerprints, results: Path | None = None) -> list[Job]:
    """The jobs of a study in the order to run them.

    A cell that starts from another row's model gets its key once that row has a result, in `out` or `results`, because
    models count by their content.

    Raises:
        InputError: two rows compute the same, or the data cannot be read.
    """
    jobs: dict[str, Job] = {}
    keys: dict[tuple[str, int], str] = {}
    folders = [out] if results is None else [results, out]
    cells = study.cells()
    found = find_results(folders, one_gpu=True) if any(map(_waits_for, cells)) else {}
    for cell in cells:
        fingerprint = fingerprints(cell.config.data)
        trained = {name: _model(found.get(keys[row, cell.seed]), out) for name, row in _waits_for(cell).items()}
        ready = {name: model for name, model in trained.items() if model is not None}
        cell = replace(cell, config=override(cell.config, ready)) if ready else cell
        key = keys[cell.row, cell.seed] = cell.key(fingerprint)
        earlier = tuple(f"{name}-s{cell.seed}" for name in earlier_hashes(cell.config, fingerprint))
        if key in jobs:
            first = jobs[key].cell.row
            raise InputError(f"study {study.name}: rows {first!r} and {cell.row!r} compute the same; remove one")
        waits_for = tuple(_waits_for(cell).values())
        jobs[key] = Job(cell=cell, key=key, earlier_keys=earlier, waits_for=waits_for, out=out)
    return list(jobs.values())


def _waits_for(cell: Cell) -> dict[str, str]:
    """The rows whose models a cell starts or learns from, by field."""
    return {name: model.row for name, model in weights_of(cell.config).items() if isinstance(model, RunOf)}


def _model(result: RunResult | None, out: Path) -> Weights | None:
    """The model of a finished run: beside its result, or in the study's folder if only a copy of the result lies elsewhere."""
    if result is None or result.model_digest is None:
        return None
    beside, own = (folder / "model.safetensors" for folder in (result.run_folder, out / result.key))
    return Weights(own if own.is_file() and not beside.is_file() else beside, result.model_digest)


def wanted_device(cells: Iterable[Cell]) -> str:
    """The `train.device` that all cells have; auto if they differ."""
    wanted = {cell.config.train.device for cell in cells}
    return wanted.pop() if len(wanted) == 1 else "auto"


def data_fingerprints() -> Fingerprints:
    """Fingerprints found by opening the data, each data set once."""
    from pocketvit.data import open_dataset

    return cache(lambda data: open_dataset(data).fingerprint)
