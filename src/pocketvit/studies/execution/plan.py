"""The plan of a study before its first run: its time and its power."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from pocketvit.config.checks import Bounds
from pocketvit.report.text import count, counted, duration, points
from pocketvit.studies.analysis.power import POWER, detectable_with, seeds_needed
from pocketvit.studies.definition.grid import Cell, Study

DIFFERENCES = (0.001, 0.002, 0.005)  # fractions to find the number of seeds for, by default


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The size of a study, its time and its power."""

    num_rows: int
    num_runs: int
    num_left: int  # runs still to be made
    num_passes: int  # of all runs that are left
    hours: float  # of the runs that are left, with one at a time on every device
    num_devices: int
    device: str | None  # its name, if known
    num_comparisons: int  # 0 for a study that compares nothing
    num_seeds: int  # of the row with the fewest
    std: float  # assumed standard deviation of a run over seeds, a fraction
    detectable: float | None
    """The least difference that the study detects with 80 % power; None with one row, inf with one seed."""
    needed: tuple[tuple[float, int], ...]  # differences, and the seeds per row that each needs

    def lines(self) -> list[str]:
        """The plan in sentences."""
        texts = [f"{counted(self.num_runs, 'run')} of {counted(self.num_rows, 'row')}, {self._left()}."]
        if self.detectable is None:
            return texts
        correction = f", corrected for {self.num_comparisons} comparisons" if self.num_comparisons > 1 else ""
        texts.append(
            f"If runs have a standard deviation of {points(self.std)} points over seeds, not counting what a seed changes in "
            f"all rows alike, then with {100 * POWER:.0f} % power{correction}:"
        )
        if self.detectable < 1:
            texts.append(f"{self.num_seeds} seeds per row detect a difference of {points(self.detectable)} points.")
        elif isfinite(self.detectable):
            texts.append(
                f"{self.num_seeds} seeds per row detect nothing: the difference would have to exceed 100 points."
            )
        else:
            texts.append("One seed per row detects nothing, because it does not show the spread over seeds.")
        return texts + [
            f"A difference of {points(size)} points needs {count(seeds)} seeds per row." for size, seeds in self.needed
        ]

    def _left(self) -> str:
        """How much of the study is left to run, and how long that takes."""
        if not self.num_left:
            return "none of them left to run"
        where = f"{self.num_devices} × {self.device}" if self.device else counted(self.num_devices, "device")
        some = f"{self.num_left:,} of them left to run, " if self.num_left < self.num_runs else ""
        return f"{some}{counted(self.num_passes, 'pass')}, about {duration(3600 * self.hours)} on {where}"


def plan_study(
    study: Study,
    *,
    std: float,
    seconds_per_pass: float,
    startup_s: float = 0.0,
    num_devices: int = 1,
    device: str | None = None,
    left: Sequence[Cell] | None = None,
    differences: Sequence[float] = DIFFERENCES,
) -> Plan:
    """Time and power of a study.

    Args:
        std: of a run over seeds, a fraction: the square root of `Spread.noise` of an earlier study, or a guess.
        seconds_per_pass: of one run on one device.
        startup_s: of one run: imports, compilation, evaluation and report.
        num_devices: that work side by side.
        device: their name.
        left: the cells that are left to run; by default all.
        differences: fractions to find the number of seeds for.
    Raises:
        InputError: an impossible number, or a difference far below `std`.
    """
    Bounds(1).check("num_devices", num_devices)
    cells = study.cells()
    left = cells if left is None else left
    num_passes = sum(cell.config.schedule.passes for cell in left)
    at_once = max(1, min(num_devices, len(left)))
    num_rows, num_comparisons = len(study.rows), len(study.compare)
    num_seeds = min(len(row.seeds) for row in study.rows)
    shape = {"num_rows": num_rows, "num_comparisons": max(1, num_comparisons)}
    return Plan(
        num_rows=num_rows,
        num_runs=len(cells),
        num_passes=num_passes,
        num_left=len(left),
        hours=(num_passes * seconds_per_pass + len(left) * startup_s) / at_once / 3600,
        num_devices=num_devices,
        device=device,
        num_comparisons=num_comparisons,
        num_seeds=num_seeds,
        std=std,
        detectable=detectable_with(num_seeds, std, **shape) if num_rows > 1 else None,
        needed=tuple((size, seeds_needed(size, std, **shape)) for size in differences) if num_rows > 1 else (),
    )
