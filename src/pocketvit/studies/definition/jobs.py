"""The cells of a study as runs to make: what names each, and where its files lie.

A cell's key is `<config hash>-s<seed>`: what is computed, on which data, with which seed. In the study's folder,

    <key>/                   the run folder, as any training makes it
    cells/<key>/config.yaml  the configuration it was started with
    cells/<key>/log.txt      what it said
    cells/<key>/failure.txt  why it failed, if it did
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pocketvit.config import DataConfig
from pocketvit.errors import InputError
from pocketvit.studies.definition.grid import Cell, Study

Fingerprints = Callable[[DataConfig], str]
"""Finds what identifies the data that a configuration names."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A cell of a study, to be run in the study's folder."""

    cell: Cell
    key: str
    """The name of its run folder: what it computes, and its seed."""
    out: Path
    """The study's folder."""

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.out / self.key

    @property
    def config_file(self) -> Path:
        """The configuration that it is started with."""
        return self.out / "cells" / self.key / "config.yaml"

    @property
    def log(self) -> Path:
        """What it said."""
        return self.config_file.with_name("log.txt")

    @property
    def failure(self) -> Path:
        """Why it failed, in one line; not there unless it did."""
        return self.config_file.with_name("failure.txt")


def study_jobs(study: Study, out: Path, fingerprints: Fingerprints) -> list[Job]:
    """The cells of a study in the order to run them.

    Raises:
        InputError: two rows compute the same, or the data cannot be read.
    """
    jobs: dict[str, Job] = {}
    for cell in study.cells():
        key = cell.key(fingerprints(cell.config.data))
        if key in jobs:
            first = jobs[key].cell.row
            raise InputError(f"study {study.name}: rows {first!r} and {cell.row!r} compute the same; remove one")
        jobs[key] = Job(cell=cell, key=key, out=out)
    return list(jobs.values())


def wanted_device(cells: Iterable[Cell]) -> str:
    """The `train.device` that cells have in common; auto where they differ."""
    wanted = {cell.config.train.device for cell in cells}
    return wanted.pop() if len(wanted) == 1 else "auto"


def data_fingerprints() -> Fingerprints:
    """Fingerprints found by opening the data, each set once."""
    from pocketvit.data import open_dataset

    return cache(lambda data: open_dataset(data).fingerprint)
