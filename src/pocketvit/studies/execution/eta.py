"""Estimates of how long cells take, from those that run and those that have run."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from pocketvit.runs.metrics import last_line
from pocketvit.runs.result import RunResult
from pocketvit.studies.definition.jobs import Job


class Progress(NamedTuple):
    """The progress of a run."""

    passes: int
    train_s: float


def progress_of(folder: Path) -> Progress | None:
    """The progress of a run by the last complete line of its metrics; None before the first."""
    line = last_line(folder / "metrics.jsonl")
    return Progress(line["pass"], line["train_s"]) if line else None


class Eta:
    """Seconds per pass of each row, and seconds a run needs besides its passes."""

    def __init__(self) -> None:
        self.pass_s: dict[str, float] = {}
        """Training time of one pass, by row; the latest figure."""
        self.beside_s: float | None = None
        """Import, compilation, evaluation and report: the least seen, because a run may also wait for its turn."""

    def learn_running(self, job: Job) -> None:
        """Learn from a cell that runs."""
        progress = progress_of(job.folder)
        if progress and progress.passes:
            self.pass_s[job.cell.row] = progress.train_s / progress.passes

    def learn_finished(self, job: Job, result: RunResult) -> None:
        """Learn from a cell that has finished on this machine."""
        self.pass_s[job.cell.row] = result.train_s / job.cell.config.schedule.passes
        known = [seconds for seconds in (result.beside_s, self.beside_s) if seconds is not None]
        self.beside_s = min(known, default=None)

    def seconds_left(self, job: Job) -> float | None:
        """Seconds a cell still takes once it has its turn; None if nothing is known yet."""
        if not self.pass_s:
            return None
        pass_s = self.pass_s.get(job.cell.row, fmean(self.pass_s.values()))
        progress = progress_of(job.folder)
        passes = job.cell.config.schedule.passes - (progress.passes if progress else 0)
        return passes * pass_s + (self.beside_s or 0.0)

    def total_left(self, jobs: Sequence[Job]) -> float | None:
        """Seconds several cells take one after the other; None if nothing is known yet."""
        seconds = [left for job in jobs if (left := self.seconds_left(job)) is not None]
        return sum(seconds) if len(seconds) == len(jobs) else None
