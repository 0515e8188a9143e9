"""Progress of a running study: a live table in a terminal, plain lines elsewhere; and the table at its end.

Names and errors are `Text`, never markup, so brackets in them are harmless.
"""

import time
from collections.abc import Mapping, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pocketvit.report.text import duration
from pocketvit.studies.analysis.findings import Finding, accuracies
from pocketvit.studies.definition.gather import CellResult
from pocketvit.studies.definition.grid import IMAGES_OF, WORD_OF, Measure, Study
from pocketvit.studies.definition.jobs import Job
from pocketvit.studies.execution.eta import Eta, progress_of
from pocketvit.tables import mean_and_spread
from pocketvit.terminal import printable


class Board:
    """The state of a running study: its cells (given as they are at the start), what runs, and the time left."""

    def __init__(self, study: Study, cells: Mapping[Job, CellResult]) -> None:
        self.study, self.cells = study, dict(cells)
        self.todo: Sequence[Job] = ()
        self.running: Mapping[Job, str] = {}
        self.eta, self.num_devices = Eta(), 1
        self.began = time.monotonic()

    def table(self) -> Table:
        """One line per row of the study: finished cells, accuracy so far, and what runs or failed."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        measure = self.study.measure
        for column in ("row", "done", f"{IMAGES_OF[measure]} {WORD_OF[measure]} so far", "now"):
            table.add_column(column, justify="right" if column == "done" else "left")
        for row in self.study.rows:
            cells = {job: cell for job, cell in self.cells.items() if cell.row == row.name}
            done = sum(cell.state == "done" for cell in cells.values())
            accuracy = accuracy_text(list(cells.values()), measure)
            table.add_row(Text(row.name), f"{done}/{len(cells)}", accuracy, self._now(cells))
        return table

    def _now(self, cells: Mapping[Job, CellResult]) -> Text:
        """The cells of a row that run, with their progress, and those that failed."""
        now = Text()
        for job, cell in cells.items():
            if job in self.running:
                progress = progress_of(job.folder)
                share = f"{progress.passes / job.cell.config.schedule.passes:.0%}" if progress else "started"
                now.append(f"s{cell.seed} {share}  ", "cyan")
            elif cell.state == "failed":
                now.append(f"s{cell.seed} failed: {cell.error}  ", "red")
        return now

    def summary(self) -> str:
        """Counts and times in one line."""
        counts = [f"{self._count('done')} of {len(self.cells)} done", f"{len(self.running)} running"]
        if failed := self._count("failed"):
            counts.insert(1, f"{failed} failed")
        left = self.eta.total_left([*self.running, *self.todo])
        known = "time left unknown" if left is None else f"about {duration(left / self.num_devices)} left"
        return f"{', '.join(counts)}; {duration(time.monotonic() - self.began)} elapsed, {known}"

    def _count(self, state: str) -> int:
        return sum(cell.state == state and job not in self.running for job, cell in self.cells.items())


class View:
    """Shows a board: a table that is kept up to date in a terminal, one line a minute elsewhere; and lines that stay."""

    EVERY_S = 60.0

    def __init__(self, board: Board, console: Console) -> None:
        self.board, self.console, self.said_at = board, console, time.monotonic()
        self.table = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        if self.table:
            self.table.start()

    def show(self) -> None:
        """Redraw the table, or print the summary if the last line is a minute old; called several times a second."""
        if self.table:
            self.table.update(Group(self.board.table(), Text(self.board.summary(), "dim")), refresh=True)
        elif time.monotonic() - self.said_at >= self.EVERY_S:
            self.say(Text(self.board.summary()))

    def say(self, text: Text) -> None:
        """Print a line, above the table if there is one."""
        self.said_at = time.monotonic()
        self.console.print(text, soft_wrap=True)

    def close(self) -> None:
        """Remove the table."""
        if self.table:
            self.table.stop()


def accuracy_text(cells: Sequence[CellResult], measure: Measure) -> str:
    """Mean and standard deviation of a row's finished cells, in percent."""
    values = [100 * value for row in accuracies(cells, measure).values() for value in row.values()]
    return f"{mean_and_spread(values)} %" if values else ""


def ended_text(cell: CellResult, measure: Measure, where: str) -> Text:
    """One line on a cell that has ended."""
    name = f"{cell.row} seed {cell.seed}"
    if cell.result is None:
        return Text(printable(f"{name} failed: {cell.error}"), "red")
    of = "of" if WORD_OF[measure] == "accuracy" else f"{WORD_OF[measure]} on"
    accuracy = f"{100 * getattr(cell.result, measure):.2f} % {of} the {IMAGES_OF[measure]} images"
    return Text(f"{name}: {accuracy} after {duration(cell.result.train_s)} of training ({where})")


def verdict_table(study: Study, found: Sequence[Finding]) -> Table:
    """The rows of a study with their accuracies and verdicts."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("row", "n", f"{IMAGES_OF[study.measure]} {WORD_OF[study.measure]}", "verdict"):
        table.add_column(column, justify="right" if column == "n" else "left")
    for finding in found:
        verdict = f"against {finding.comparison.reference}: {finding.verdict}" if finding.comparison else ""
        accuracy = accuracy_text(finding.cells, study.measure)
        table.add_row(Text(finding.row), str(finding.count("done")), accuracy, Text(verdict))
    return table
