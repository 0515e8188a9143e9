"""Run a study: every cell that has no result yet, on all devices, until they are done, time is up or a signal comes.

A cell counts as finished by its result alone, wherever it was made, and is never run again. An unfinished one goes on
from its checkpoint. So the same command, given again after whatever stopped it, continues the study; and a study that
was killed a hundred times ends with the table of one that was not.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.text import Text

from pocketvit.errors import InputError
from pocketvit.files import path_of
from pocketvit.lock import locked
from pocketvit.runs.result import result_at
from pocketvit.studies.definition.choose import chosen_rows
from pocketvit.studies.definition.gather import CellResult, gather, note_failure, outcome
from pocketvit.studies.definition.grid import Study
from pocketvit.studies.definition.jobs import Job, data_fingerprints, study_jobs, wanted_device
from pocketvit.studies.execution.eta import progress_of
from pocketvit.studies.execution.live import Board, View, ended_text, view
from pocketvit.studies.execution.outdated import outdated

TICK_S = 0.2


class Engine(Protocol):
    """Runs cells, several at a time."""

    num_devices: int
    """Trainings at a time."""

    @property
    def running(self) -> dict[Job, str]:
        """The cells that have been started and have not ended, each with where it is."""

    def free_slot(self) -> list[Job] | None:
        """The cells on the device that takes the next one, which it would wait for; None where none is free."""

    def start(self, job: Job) -> None:
        """Start a cell."""

    def ended(self) -> list[tuple[Job, str | None]]:
        """The cells that ended since the last call, each with the reason if it left no result."""

    def stop(self) -> None:
        """Let all cells save and end."""

    def kill(self) -> None:
        """End all cells at once."""


@dataclass(frozen=True, kw_only=True)
class StudyRun:
    """How running a study ended."""

    gathered: list[CellResult]
    """All its cells, also those that were not to be run."""
    signum: int | None
    """The signal that stopped it."""
    left: int
    """Cells that were to be run and have neither ended nor failed."""


@contextmanager
def study_lock(out: Path, name: str) -> Iterator[int | None]:
    """Keep a study's folder to this process and those it starts, which inherit the open file that is handed out.

    Args:
        out: the folder.
        name: of the study.
    Raises:
        InputError: a study is at work there, another one has its tables there, or a run, or the folder cannot be written.
    """
    cells = out / "cells"
    if (out / "config.yaml").exists():
        raise InputError(f"{out} is the folder of a run; choose another --out for the study {name}")
    try:
        cells.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}") from error
    with locked(cells, f"a study is running in {out}; wait for it or choose another --out") as descriptor:
        _claim(out, name)
        yield descriptor


def _claim(out: Path, name: str) -> None:
    """Note whose tables lie in a study's folder; raise an `InputError` where they are another study's."""
    owner = out / "cells" / "study.txt"
    try:
        held = owner.read_text(encoding="utf-8").strip() if owner.exists() else name
        owner.write_text(held + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {owner}: {error.strerror}") from error
    if held != name:
        raise InputError(f"{out} holds the study {held}, whose tables would be lost; choose another --out")


class Runner:
    """Brings the cells of a study through an engine.

    Args:
        todo: the cells to run, in order.
        engine: runs them.
        board: all cells of the study.
        shown: shows the board.
        until: `time.monotonic()` when the time is up.
    """

    def __init__(self, todo: Sequence[Job], engine: Engine, board: Board, shown: View, until: float = inf) -> None:
        # Those that were begun come first, so that a study cut short leaves few of them.
        self.todo = sorted(todo, key=lambda job: progress_of(job.folder) is None)
        self.engine, self.board, self.shown, self.until = engine, board, shown, until
        board.num_devices = engine.num_devices

    def run(self) -> int | None:
        """Run until all is done, time is up or a signal comes, which is returned."""
        from pocketvit.training.stop import StopRequest

        try:
            with StopRequest() as stop:
                while self.engine.running or self.todo:
                    self._start()
                    self._look()
                    time.sleep(TICK_S)
                    self._collect()
                    if stop.signum is not None or time.monotonic() > self.until or not self._can_go_on():
                        break
                self.engine.stop()
                self._collect(stopped=True)
                return stop.signum
        finally:
            self.engine.kill()
            self.shown.close()

    def _look(self) -> None:
        """Learn how fast the cells go, and show where everything stands."""
        self.board.todo, self.board.running = self.todo, self.engine.running
        for job in self.board.running:
            self.board.eta.learn_running(job)
        self.shown.show()

    def _can_go_on(self) -> bool:
        """Whether something runs, or could be started in the time left."""
        return bool(self.engine.running) or any(self._fits(job, []) for job in self.todo)

    def _start(self) -> None:
        """Start cells that will end in time, as long as there is room."""
        while (before := self.engine.free_slot()) is not None:
            job = next((job for job in self.todo if self._fits(job, before)), None)
            if job is None:
                return
            self.engine.start(job)
            self.todo.remove(job)

    def _fits(self, job: Job, before: list[Job]) -> bool:
        """Whether a cell will end in time behind those before it; where nothing is known yet it is tried."""
        seconds = self.board.eta.total_left([*before, job])
        return seconds is None or time.monotonic() + seconds <= self.until

    def _collect(self, *, stopped: bool = False) -> None:
        """Note the cells that ended; one that was stopped has not failed."""
        running = dict(self.engine.running)
        for job, error in self.engine.ended():
            if error is not None and stopped:
                continue
            if error is not None:
                note_failure(job, error)
            cell = outcome(job, None if error else result_at(job.folder / "result.json"))
            if cell.result is not None:
                self.board.eta.learn_finished(job, cell.result)
            self.board.cells[job] = cell
            self.shown.say(ended_text(cell, self.board.study.measure, running[job]))


def run_study(
    study: Study,
    out: str | Path,
    *,
    gpus: Sequence[str] | None = None,
    address: str | None = None,
    results: Path | None = None,
    time_limit_s: float = inf,
    only: Sequence[str] = (),
    console: Console | None = None,
) -> StudyRun:
    """Run what is left of a study.

    Args:
        study: the study.
        out: its folder.
        gpus: to use, as CUDA_VISIBLE_DEVICES names them; by default all.
        address: of a Ray cluster to run on instead of this machine.
        results: a folder with results of earlier studies.
        time_limit_s: after which running cells are saved and stopped. None is started that would not end in time.
        only: rows to run, as `chosen_rows` takes them; by default all.
        console: where to say how it goes.
    Raises:
        InputError: the study, its data, its devices or its folder cannot be used, or another study is running there.
    """
    began, out = time.monotonic(), path_of(out)
    jobs = study_jobs(study, out, data_fingerprints())
    chosen = chosen_rows(study, only or ["*"])
    with study_lock(out, study.name) as lock:
        cells = dict(zip(jobs, gather(jobs, results), strict=True))
        todo = [job for job in jobs if cells[job].state != "done" and job.cell.row in chosen]
        console, signum = console or Console(), None
        for line in outdated(jobs, list(cells.values())):
            console.print(Text(line), soft_wrap=True)
        if todo:
            board = Board(study, cells)
            engine = _engine(todo, gpus, address, lock)
            runner = Runner(todo, engine, board, view(board, console), began + time_limit_s)
            signum = runner.run()
        gathered = gather(jobs, results)
    left = [cell for cell in gathered if cell.state == "missing" and cell.row in chosen]
    return StudyRun(gathered=gathered, signum=signum, left=len(left))


def _engine(todo: Sequence[Job], gpus: Sequence[str] | None, address: str | None, lock: int | None) -> Engine:
    """The processes of this machine, or the tasks of a Ray cluster."""
    device = wanted_device(job.cell for job in todo)
    if address is None:
        from pocketvit.studies.execution.local import LocalEngine, find_slots

        return LocalEngine(find_slots(gpus, device), pass_fds=[] if lock is None else [lock])
    try:
        from pocketvit.studies.execution.ray import RayEngine
    except ModuleNotFoundError as error:
        raise InputError("--engine ray needs Ray: pip install 'pocketvit[ray]'") from error
    return RayEngine(address, device)
