"""The state of a study's cells, read from disk.

A cell's result counts wherever it is: in the study's folder, or as a file under results/ that another study wrote,
perhaps on another machine. A cell without a result has failed if its failure was recorded; otherwise it is missing.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pocketvit.errors import InputError
from pocketvit.files import read_bytes
from pocketvit.runs.result import RunResult, find_results
from pocketvit.studies.definition.jobs import Job


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """The state of one cell of a study, with its result."""

    row: str
    seed: int
    state: Literal["done", "failed", "missing"]
    result: RunResult | None = None  # None unless done
    error: str | None = None  # why it failed, in one line; None unless failed
    folder: Path | None = None  # the run folder; None if there is none, for example if the result is a single file
    log: Path | None = None  # its output; None unless failed, and if there is none


def gather(jobs: Sequence[Job], results: Path | None = None) -> list[CellResult]:
    """The state of every cell of a study. Runs on several GPUs do not count: their times cannot be compared.

    Args:
        jobs: of the study, one per cell.
        results: a folder of results from elsewhere.
    Returns:
        one entry per cell, in the order of `jobs`.
    """
    folders = {job.out: None for job in jobs} | ({results: None} if results else {})
    found = find_results(list(folders), one_gpu=True)
    return [outcome(job, found.get(job.key)) for job in jobs]


def outcome(job: Job, result: RunResult | None) -> CellResult:
    """The state of one cell, given its result if it has one."""
    row, seed = job.cell.row, job.cell.seed
    if result is not None:
        if job.cell.config.data.val_frac and result.val_accuracy is None:
            error = f"{result.file} has no val_accuracy, although the run holds out validation images"
            return CellResult(row=row, seed=seed, state="failed", error=error)
        folder = result.run_folder if result.file.name == "result.json" else None
        return CellResult(row=row, seed=seed, state="done", result=result, folder=folder)
    folder = job.folder if job.folder.is_dir() else None
    if os.path.isfile(job.failure):
        error = _said(job.failure)
        log = job.log if job.log.is_file() else None
        return CellResult(row=row, seed=seed, state="failed", error=error, folder=folder, log=log)
    return CellResult(row=row, seed=seed, state="missing", folder=folder)


def _said(failure: Path) -> str:
    try:
        return read_bytes(failure, 2**16).decode(errors="replace").strip()
    except OSError as error:
        return f"{failure} cannot be read: {error.strerror}"


def with_earlier(jobs: Sequence[Job], found: Mapping[str, RunResult]) -> dict[str, RunResult]:
    """`found`, and for rows without a result those from before a revision of what they compute, by the present keys."""
    rows_done = {job.cell.row for job in jobs if job.key in found}
    earlier = {
        job.key: found[key]
        for job in jobs
        if job.cell.row not in rows_done
        for key in reversed(job.earlier_keys)
        if key in found
    }
    return {**found, **earlier}


def note_failure(job: Job, error: str) -> None:
    """Record why a cell failed, for `outcome` to find.

    Raises:
        InputError: it cannot be written.
    """
    try:
        job.failure.write_text(error + "\n", encoding="utf-8", errors="backslashreplace")
    except OSError as broken:
        raise InputError(f"cannot write {job.failure}: {broken.strerror}") from broken
