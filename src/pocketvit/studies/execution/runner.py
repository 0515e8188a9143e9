"""Run a study: every cell without a result, on all devices, until all are done, time is up or a signal arrives.

A cell with a result is finished, wherever the result was made, and is never repeated. An unfinished one resumes from its
checkpoint. So the same command continues the study after any interruption, and a study that was killed a hundred times
ends with the same table as one that was not.
"""

import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from pocketvit.config import weights_of
from pocketvit.errors import InputError
from pocketvit.files import path_of, read_bytes
from pocketvit.lock import locked
from pocketvit.runs.result import result_at
from pocketvit.studies.definition.choose import chosen_rows
from pocketvit.studies.definition.gather import CellResult, gather, note_failure, outcome
from pocketvit.studies.definition.grid import Study
from pocketvit.studies.definition.jobs import Job, data_fingerprints, study_jobs, wanted_device
from pocketvit.studies.execution.eta import progress_of
from pocketvit.studies.execution.live import Board, View, ended_text
from pocketvit.studies.execution.outdated import outdated
from pocketvit.terminal import printable

if TYPE_CHECKING:
    from pocketvit.studies.execution.local import LocalEngine
    from pocketvit.studies.execution.ray_engine import RayEngine

    Engine = LocalEngine | RayEngine

TICK_S = 0.2


@dataclass(frozen=True, kw_only=True)
class StudyRun:
    """How running a study ended."""

    gathered: list[CellResult]  # all its cells, including those not chosen
    signum: int | None  # the signal that stopped it
    left: int  # chosen cells that have neither finished nor failed


@contextmanager
def study_lock(out: Path, name: str) -> Iterator[int | None]:
    """Lock a study's folder for this process and those it starts, which inherit the open file that is yielded.

    Raises:
        InputError: a study runs there, the folder is another study's or a run's, or it cannot be written.
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
    """Record which study a folder belongs to; raise an `InputError` if it is another one's."""
    owner = out / "cells" / "study.txt"
    try:
        held = read_bytes(owner).decode(errors="replace").strip() if owner.exists() else name
        owner.write_text(held + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {owner}: {error.strerror}") from error
    if held != name:
        raise InputError(f"{out} holds the study {held}, whose tables would be overwritten; choose another --out")


class Runner:
    """Runs cells on an engine, in order, until `time.monotonic()` is `until`; the board has all cells of the study."""

    def __init__(self, todo: Sequence[Job], engine: "Engine", board: Board, shown: View, until: float = inf) -> None:
        # Begun cells come first, so that an interrupted study leaves few unfinished ones.
        self.todo = sorted(todo, key=lambda job: progress_of(job.folder) is None)
        self.engine, self.board, self.shown, self.until = engine, board, shown, until
        board.num_devices = engine.num_devices

    def run(self) -> int | None:
        """Run until all is done, time is up or a signal arrives, which is returned."""
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
        """Update the estimates and the display."""
        self.board.todo, self.board.running = self.todo, self.engine.running
        for job in self.board.running:
            self.board.eta.learn_running(job)
        self.shown.show()

    def _can_go_on(self) -> bool:
        """Whether something runs, or could be started in the time left."""
        return bool(self.engine.running) or any(self._fits(job, []) for job in self.todo)

    def _start(self) -> None:
        """Start cells that will end in time, as long as a device is free."""
        while (before := self.engine.free_slot()) is not None:
            job = next((job for job in self.todo if self._fits(job, before)), None)
            if job is None:
                return
            self.engine.start(job)
            self.todo.remove(job)

    def _fits(self, job: Job, before: list[Job]) -> bool:
        """Whether a cell will end in time after those before it; yes if nothing is known yet."""
        seconds = self.board.eta.total_left([*before, job])
        return seconds is None or time.monotonic() + seconds <= self.until

    def _collect(self, *, stopped: bool = False) -> None:
        """Record the cells that ended; a stopped one has not failed."""
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
    results: str | Path | None = None,
    time_limit_s: float = inf,
    only: Sequence[str] = (),
    track: str | None = None,
    console: Console | None = None,
) -> StudyRun:
    """Run what is left of a study.

    Args:
        study: from `find_study`.
        out: the study's folder.
        gpus: to use, named as in CUDA_VISIBLE_DEVICES; by default all.
        address: of a Ray cluster to run on instead of this machine.
        results: a folder with results of earlier studies.
        time_limit_s: after which running cells save and stop. No cell is started that would not end in time.
        only: rows to run, as `chosen_rows` takes them; by default all.
        track: experiment tracker to send every run to, as `pocketvit.tracked` takes it.
        console: where to print progress.
    Returns:
        how it ended. The tables and the page are written by `pocketvit study` with the same folder, which repeats no
        finished run.
    Raises:
        InputError: the study, its data, its devices or its folder cannot be used, or another study runs there.
    """
    if not isinstance(study, Study):
        raise InputError(f"{study!r} is not a study; read one with pocketvit.find_study('digits'), for example")
    began, out, results = time.monotonic(), path_of(out), None if results is None else path_of(results)
    fingerprints, chosen = data_fingerprints(), chosen_rows(study, only or ["*"])

    def make_jobs() -> list[Job]:
        jobs = study_jobs(study, out, fingerprints, results)
        return [replace(job, track=track and (track, f"{study.name}/{job.cell.row}")) for job in jobs]

    jobs = make_jobs()
    _check_waiting(jobs, chosen)
    with study_lock(out, study.name) as lock:
        gathered = gather(jobs, results)
        shown, signum = console or Console(), None
        for line in outdated(jobs, gathered):
            shown.print(Text(printable(line)), soft_wrap=True)
        tried: set[str] = set()
        while signum is None and (not tried or time.monotonic() < began + time_limit_s):  # again for cells that waited
            cells = dict(zip(jobs, gathered, strict=True))
            ready = [job for job in jobs if job.cell.row in chosen and not job.waits_for and job.key not in tried]
            todo = [job for job in ready if cells[job].state != "done"]
            if not todo:
                break
            _check_models(todo)
            tried |= {job.key for job in todo}
            board = Board(study, cells)
            engine = _engine(todo, gpus, address, lock)
            signum = Runner(todo, engine, board, View(board, shown), began + time_limit_s).run()
            jobs = make_jobs()
            gathered = gather(jobs, results)
    left = [cell for cell in gathered if cell.state == "missing" and cell.row in chosen]
    return StudyRun(gathered=gathered, signum=signum, left=len(left))


def _check_waiting(jobs: Sequence[Job], chosen: Collection[str]) -> None:
    """Refuse to run cells that wait for rows which are not to be run."""
    for job in jobs:
        for row in job.waits_for if job.cell.row in chosen else ():
            if row not in chosen:
                raise InputError(f"row {job.cell.row!r} starts from the model of row {row!r}: add {row} to --only")


def _check_models(todo: Sequence[Job]) -> None:
    """Refuse to run cells that start or learn from a model of which there is no file."""
    for job in todo:
        for field, model in weights_of(job.cell.config).items():
            if not os.path.isfile(model.path):
                raise InputError(
                    f"row {job.cell.row!r}: {field}: there is a result in {model.path.parent}, but no model; train that row "
                    "again with --results and another folder"
                )


def _engine(todo: Sequence[Job], gpus: Sequence[str] | None, address: str | None, lock: int | None) -> "Engine":
    """The local engine, or the one for a Ray cluster."""
    device = wanted_device(job.cell for job in todo)
    if address is None:
        from pocketvit.studies.execution.local import LocalEngine, find_slots

        return LocalEngine(find_slots(gpus, device), pass_fds=[] if lock is None else [lock])
    try:
        from pocketvit.studies.execution.ray_engine import RayEngine
    except ModuleNotFoundError as error:
        raise InputError("--engine ray needs Ray: pip install 'pocketvit[ray]'") from error
    return RayEngine(address, device)
