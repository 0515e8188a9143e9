"""Send a run to an experiment tracker: its configuration, curves, result and report.

A tracker is a reporter like any other (`progress.py`). It is imported when its run begins, and one that fails is left out
from then on. What identifies the run there is kept in the run folder's `tracker.json`, so that a resumed run goes on in
the same place.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from pocketvit.config import RunConfig, flatten
from pocketvit.config.checks import unknown
from pocketvit.data.pixels import one_line
from pocketvit.errors import InputError
from pocketvit.files import read_json, write_json
from pocketvit.runs.result import RunResult, is_number
from pocketvit.training.progress import Reporter, SilentReporter, console_reporter

FILE = "tracker.json"
"""In the run folder: what identifies the run, by tracker."""
COUNTERS = ("pass", "step")  # of a line of metrics.jsonl; everything else in it is a curve


class Tracker(SilentReporter, ABC):
    """What the trackers have in common.

    Args:
        group: of runs that differ only by their seed; by default the run is alone and named after its folder.
    """

    where = ""
    """How to see the run, in a few words; known once it is open."""

    def __init__(self, group: str | None = None) -> None:
        self.group, self.done = group, False

    def opened(self, config: RunConfig, folder: Path) -> None:
        """Begin the run there, or continue it."""
        self.folder, self.resumed = folder, (folder / FILE).exists()
        self.name = f"{self.group}-s{config.seed}" if self.group else folder.name
        values = flatten(config).items()
        plain = (bool, int, float, str)
        self.begin({name: value if isinstance(value, plain) else str(value) for name, value in values})

    @abstractmethod
    def begin(self, config: dict[str, Any]) -> None:
        """Begin the run with a configuration by dotted names."""

    def passed(self, line: dict[str, Any]) -> None:
        """Add a point to each curve."""
        self.log({name: value for name, value in line.items() if name not in COUNTERS}, line["step"])

    @abstractmethod
    def log(self, values: dict[str, float], step: int) -> None:
        """Add values after so many steps."""

    def finished(self, result: RunResult) -> None:
        """Add the result and the report."""
        self.done = True
        content = {f"result/{name}": value for name, value in asdict(result).items()}
        numbers = {name: float(value) for name, value in content.items() if is_number(value)}
        report = result.run_folder / "report.html"
        self.conclude(numbers, result.file, report if report.exists() else None)

    @abstractmethod
    def conclude(self, numbers: dict[str, float], result: Path, report: Path | None) -> None:
        """Add the result's numbers, its file, and the report if there is one."""

    def kept(self, key: str, make: Callable[[], str]) -> str:
        """What identifies the run in this tracker, made when it first begins."""
        path = self.folder / FILE
        held = read_json(path) if path.exists() else {}
        if key not in held:
            held[key] = make()
            write_json(path, held)
        return str(held[key])


class Tracked(Reporter):
    """A reporter, and a tracker that hears the same as long as it does not fail."""

    def __init__(self, reporter: Reporter, tracker: Reporter, name: str) -> None:
        self.reporter, self.name = reporter, name
        self.tracker: Reporter | None = tracker

    def _tell(self, event: str, *what: Any) -> None:
        """Tell both; a tracker that fails is not told anything more."""
        getattr(self.reporter, event)(*what)
        try:
            if self.tracker is not None:
                getattr(self.tracker, event)(*what)
        except (Exception, SystemExit) as error:  # whatever a tracker raises, the run goes on
            self.tracker = None
            why = one_line(error) if isinstance(error, Exception) else "it wanted to end the program"
            self.reporter.note(f"CAUTION: {self.name} failed ({why}); continuing without it")

    def note(self, line: str) -> None:
        """Print one line."""
        self.reporter.note(line)

    def opened(self, config: RunConfig, folder: Path) -> None:
        """Begin the run in the tracker, and say how to see it."""
        self._tell("opened", config, folder)
        if isinstance(self.tracker, Tracker):
            self.note(f"{self.name}: {self.tracker.where}")

    def start(self, total_steps: int, done_steps: int) -> None:
        """Tell both."""
        self._tell("start", total_steps, done_steps)

    def advance(self, steps: int) -> None:
        """Tell both."""
        self._tell("advance", steps)

    def passed(self, line: dict[str, Any]) -> None:
        """Tell both."""
        self._tell("passed", line)

    def stop(self) -> None:
        """Tell both."""
        self._tell("stop")

    def finished(self, result: RunResult) -> None:
        """Tell both."""
        self._tell("finished", result)

    def closed(self) -> None:
        """Tell both."""
        self._tell("closed")


def tracked(name: str, reporter: Reporter | None = None, *, group: str | None = None) -> Reporter:
    """A reporter that also sends the run to a tracker.

    Args:
        name: tensorboard, wandb, mlflow or trackio.
        reporter: shows progress; by default a bar in a terminal, and lines elsewhere.
        group: of runs that differ only by their seed.
    Raises:
        InputError: no such tracker.
    """
    from pocketvit.training.trackers import TRACKERS

    if name not in TRACKERS:
        raise InputError(unknown("tracker", name, TRACKERS))
    return Tracked(reporter or console_reporter(Console()), TRACKERS[name](group), name)
