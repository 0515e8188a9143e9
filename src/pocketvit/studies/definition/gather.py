"""What became of a study's cells, read from what they left on disk.

A cell's result counts wherever it lies: in the study's own folder, or as a file under results/ that another study
wrote, perhaps on another machine. A cell without a result that left a note of its failure has failed; any other is
missing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from pocketvit.errors import InputError
from pocketvit.files import read_json
from pocketvit.studies.definition.jobs import Job


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """What became of one cell of a study."""

    row: str
    seed: int
    state: Literal["done", "failed", "missing"]
    result: dict[str, Any] | None
    """The content of result.json; None unless done."""
    error: str | None
    """Why it failed, in one line; None unless failed."""
    folder: Path | None
    """The run folder; None where there is none, as for a result that came as a file alone."""
    log: Path | None = None
    """What it said; None unless failed, or where it is not there."""


def gather(jobs: Sequence[Job], results: Path | None = None) -> list[CellResult]:
    """What became of a study's cells. A run on several GPUs is none of them: its time is that of no single one.

    Args:
        jobs: the study's, one a cell.
        results: a folder of results from elsewhere.
    Returns:
        one entry a cell, in the order of `jobs`.
    """
    folders = {job.out: None for job in jobs} | ({results: None} if results else {})
    found = find_results(list(folders), one_gpu=True)
    return [outcome(job, *found.get(job.key, (None, None))) for job in jobs]


def outcome(job: Job, result: dict[str, Any] | None, path: Path | None = None) -> CellResult:
    """What became of one cell.

    Args:
        job: the cell.
        result: its result, if it has one.
        path: the file that the result was read from.
    """
    row, seed = job.cell.row, job.cell.seed
    if result is not None and path is not None:
        if job.cell.config.data.val_frac and result.get("val_accuracy") is None:
            error = f"{path} has no val_accuracy, which every run that holds out validation images has"
            return CellResult(row=row, seed=seed, state="failed", result=None, error=error, folder=None)
        folder = path.parent if path.name == "result.json" else None
        return CellResult(row=row, seed=seed, state="done", result=result, error=None, folder=folder)
    folder = job.folder if job.folder.is_dir() else None
    if job.failure.is_file():
        error = job.failure.read_text(encoding="utf-8").strip()
        log = job.log if job.log.is_file() else None
        return CellResult(row=row, seed=seed, state="failed", result=None, error=error, folder=folder, log=log)
    return CellResult(row=row, seed=seed, state="missing", result=None, error=None, folder=folder)


def note_failure(job: Job, error: str) -> None:
    """Keep why a cell failed, for `outcome` to find.

    Raises:
        InputError: it cannot be written.
    """
    try:
        job.failure.write_text(error + "\n", encoding="utf-8")
    except OSError as broken:
        raise InputError(f"cannot write {job.failure}: {broken.strerror}") from broken


def find_results(folders: Sequence[Path], *, one_gpu: bool = False) -> dict[str, tuple[dict[str, Any], Path]]:
    """Every result in some folders, at any depth, by the key of its cell, with its file.

    Where several have the same key, the first folder counts, there the run on the fewest GPUs, then the first by path.

    Args:
        folders: to search.
        one_gpu: leave out runs on several GPUs, whose speed and time are those of no single one.
    """
    found: dict[str, tuple[dict[str, Any], Path]] = {}
    for folder in folders:
        read = ((read_result(path), path) for path in sorted(folder.rglob("*.json")))
        results = [(result, path) for result, path in read if result and not (one_gpu and _num_gpus(result) > 1)]
        for result, path in sorted(results, key=lambda entry: _num_gpus(entry[0])):
            found.setdefault(result_key(result), (result, path))
    return found


def _num_gpus(result: dict[str, Any]) -> int:
    """How many GPUs a run took; one on a CPU counts as one."""
    return max(1, result.get("num_gpus", 1))


def result_key(result: dict[str, Any]) -> str:
    """The key of the cell that a result is of."""
    return f"{result['config_hash']}-s{result['seed']}"


def read_result(path: Path) -> dict[str, Any] | None:
    """A run's result; None where the file is absent, torn, or holds something else."""
    try:
        content = read_json(path)
    except (ValueError, RecursionError):
        return None
    return content if _is_result(content) else None


def _is_result(content: dict[str, Any]) -> bool:
    """Whether what is read of a result is what it has to be."""
    figures = [content.get(name) for name in ("train_s", "total_s", "images_per_s")]
    held_out = content.get("val_accuracy")
    return (
        isinstance(content.get("config_hash"), str)
        and isinstance(content.get("seed"), int)
        and isinstance(content.get("num_gpus", 0), int)
        and _is_fraction(content.get("test_accuracy"))
        and (held_out is None or _is_fraction(held_out))
        and isinstance(content.get("device"), str)
        and all(isinstance(figure, int | float) and isfinite(figure) and figure > 0 for figure in figures)
    )


def _is_fraction(value: Any) -> bool:
    return isinstance(value, int | float) and isfinite(value) and 0 <= value <= 1
