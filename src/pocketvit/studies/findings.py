"""What a study found, row by row: accuracy with its spread, the comparison with the reference, and the cost.

Only finished cells count. A failed or missing one is counted as such and gives no number, so a row of which nothing is
there yet has None in the place of every figure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal

from pocketvit.studies.gather import CellResult
from pocketvit.studies.grid import Study
from pocketvit.studies.power import LEVEL
from pocketvit.studies.stats import Accuracies, Comparison, Summary, compare, summarise
from pocketvit.studies.verdict import untold, verdict

Kind = Literal["helps", "hurts", "equal", "untold"]
"""What a comparison says: equal is that no difference was seen, untold that there is too little to go by."""

NOISY = 5.0
"""A row that scatters by more than this times the median row does not share its variance with the others."""
FEWEST = 4
"""Rows with several seeds from which their median scatter means something."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One row of a study with everything that its runs say."""

    row: str
    cells: tuple[CellResult, ...]
    """By seed."""
    accuracy: Summary
    """Test accuracy after the last step, fractions."""
    best_look: Summary
    """The best of the looks at the test set during training, fractions; without a run where nobody looked."""
    comparison: Comparison | None
    """None for a row that is compared with none."""
    num_params: float | None
    train_s: float | None
    """Mean over the runs; augmentation included, compiling and evaluation left out."""
    images_per_s: float | None
    """Mean over the runs."""
    peak_memory_gib: float | None
    """Mean over the runs."""

    def count(self, state: str) -> int:
        """How many cells are done, failed or missing."""
        return sum(cell.state == state for cell in self.cells)

    @property
    def verdict(self) -> str | None:
        """The comparison in plain words, or that all runs failed; None where there is no comparison."""
        if self.comparison is None:
            return None
        return "failed" if self.count("failed") == len(self.cells) else verdict(self.comparison)

    @property
    def kind(self) -> Kind | None:
        """The verdict in one word; None without a comparison."""
        if self.comparison is None:
            return None
        if untold(self.comparison):
            return "untold"
        if self.comparison.p_holm > LEVEL:
            return "equal"
        return "helps" if (self.comparison.difference or 0.0) > 0 else "hurts"


def accuracies(gathered: Sequence[CellResult], key: str = "test_accuracy") -> Accuracies:
    """A figure of every finished cell by row and seed; rows without one are there, and empty."""
    found: dict[str, dict[int, float]] = {cell.row: {} for cell in gathered}
    for cell in gathered:
        if cell.result is not None and cell.result.get(key) is not None:
            found[cell.row][cell.seed] = cell.result[key]
    return found


def findings(study: Study, gathered: Sequence[CellResult]) -> list[Finding]:
    """Sum up a study.

    Args:
        study: says what is compared with what.
        gathered: all its cells, finished or not.
    Returns:
        the rows in the study's order.
    """
    final, best = accuracies(gathered), accuracies(gathered, "best_test_accuracy")
    comparisons = compare(final, study.compare, apart=noisy_rows(final))
    return [
        Finding(
            row=row.name,
            cells=tuple(sorted((cell for cell in gathered if cell.row == row.name), key=lambda cell: cell.seed)),
            accuracy=summarise(final.get(row.name, {})),
            best_look=summarise(best.get(row.name, {})),
            comparison=comparisons.get(row.name),
            num_params=_mean(gathered, row.name, "num_params"),
            train_s=_mean(gathered, row.name, "train_s"),
            images_per_s=_mean(gathered, row.name, "images_per_s"),
            peak_memory_gib=_mean(gathered, row.name, "peak_memory_gib"),
        )
        for row in study.rows
    ]


def noisy_rows(found: Accuracies) -> list[str]:
    """Rows that scatter far more than the others, as one does that diverges with some seeds."""
    spreads = {row: std for row, values in found.items() if (std := summarise(values).std) is not None}
    if len(spreads) < FEWEST:
        return []
    usual = median(spreads.values())
    return [row for row, std in spreads.items() if usual and std > NOISY * usual]


def _mean(gathered: Sequence[CellResult], row: str, key: str) -> float | None:
    """The mean of a figure over a row's finished cells; None where they have none."""
    values = list(accuracies(gathered, key).get(row, {}).values())
    return fmean(values) if values else None
