"""Progress of a run: a live bar in a terminal, plain lines elsewhere, or nothing."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from pocketvit.config import RunConfig
from pocketvit.runs.result import RunResult
from pocketvit.terminal import printable


class Reporter(Protocol):
    """Receives the progress of a run; methods that a subclass does not override do nothing.

    In the order of a run: `opened`, `start`, then `advance` and `passed`, `stop`, `finished`, `closed`; `note` at any time.
    """

    def note(self, line: str) -> None:
        """Print one line.

        Args:
            line: without a line break.
        """

    def opened(self, config: RunConfig, folder: Path) -> None:
        """The run folder is open; training has not begun.

        Args:
            config: what is run.
            folder: the run folder.
        """

    def start(self, total_steps: int, done_steps: int) -> None:
        """Training begins or resumes.

        Args:
            total_steps: of the run.
            done_steps: before it was interrupted; 0 for a new one.
        """

    def advance(self, steps: int) -> None:
        """More steps are done.

        Args:
            steps: since the last call.
        """

    def passed(self, line: dict[str, Any]) -> None:
        """A pass is done.

        Args:
            line: what metrics.jsonl says of it.
        """

    def stop(self) -> None:
        """Training has ended, for whatever reason."""

    def finished(self, result: RunResult) -> None:
        """All files of the run are written; not called if it stopped or failed.

        Args:
            result: the content of result.json.
        """

    def closed(self) -> None:
        """The run has ended, for whatever reason."""


class SilentReporter(Reporter):
    """Prints nothing."""


Silent = SilentReporter  # its former name


def measured(line: dict[str, Any]) -> dict[str, float]:
    """The accuracies of the pass's evaluation; none without one. With several classes an image, their mAP instead."""
    score = "map" if {"val_map", "test_map"} & line.keys() else "accuracy"
    return {key: line[key] for key in (f"val_{score}", f"test_{score}") if key in line}


def pass_text(line: dict[str, Any]) -> str:
    """A pass in a few words: loss, accuracy if measured, speed, learning rate."""
    parts = [
        f"pass {line['pass']}",
        f"loss {line['loss']:.3f}",
        *(f"{name.replace('_', ' ').replace('map', 'mAP')} {value:.2%}" for name, value in measured(line).items()),
        f"{line['images_per_s']:,.0f} images/s",
        f"lr {line['lr']:.2g}",
    ]
    return "  ".join(parts)


class LineReporter(SilentReporter):
    """A line for each evaluated pass, and at least one every ten seconds.

    Args:
        console: where to print; by default standard output.
    """

    EVERY_S = 10.0

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self.said_at = 0.0

    def note(self, line: str) -> None:
        """Print one line."""
        self.console.print(printable(line), highlight=False, markup=False, soft_wrap=True)

    def passed(self, line: dict[str, Any]) -> None:
        """Print the pass if it was evaluated, or nothing was printed for a while."""
        now = time.monotonic()
        if measured(line) or now - self.said_at >= self.EVERY_S:
            self.said_at = now
            self.note(pass_text(line))


class _TwoLines(Progress):
    """A bar, and below it the last pass in words, cut off below 80 columns."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            first = f"first pass  {task.speed:.1f} steps/s" if task.speed else "first step"
            yield Text(task.fields["status"] or first, style="cyan", no_wrap=True, overflow="ellipsis")


class BarReporter(SilentReporter):
    """A live bar with the time left; below it the last pass, above it a line for each evaluated one.

    Args:
        console: where to print; by default standard output.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.progress = _TwoLines(
            BarColumn(bar_width=20, table_column=Column(no_wrap=True)),
            TextColumn("{task.percentage:>3.0f} %", table_column=Column(no_wrap=True)),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            TextColumn("left", table_column=Column(no_wrap=True)),
            console=console,
        )
        self.accuracy: dict[str, Any] = {}

    def note(self, line: str) -> None:
        """Print one line above the bar."""
        self.progress.console.print(printable(line), highlight=False, markup=False, soft_wrap=True)

    def start(self, total_steps: int, done_steps: int) -> None:
        """Show the bar."""
        self.task = self.progress.add_task("train", total=total_steps, completed=done_steps, status="")
        self.progress.start()

    def advance(self, steps: int) -> None:
        """Move the bar."""
        self.progress.advance(self.task, steps)

    def passed(self, line: dict[str, Any]) -> None:
        """Put the pass below the bar and, if it was evaluated, above it as well."""
        accuracy = measured(line)
        self.accuracy = accuracy or self.accuracy
        self.progress.update(self.task, status=pass_text(line | self.accuracy))
        if accuracy:
            self.note(pass_text(line))

    def stop(self) -> None:
        """Remove the bar."""
        self.progress.stop()


def console_reporter(console: Console) -> Reporter:
    """A bar in a terminal, plain lines elsewhere."""
    return BarReporter(console) if console.is_terminal else LineReporter(console)
