"""The findings of a study by row: accuracy with its spread, the comparison with its reference, and the cost.

Only finished cells count. Failed and missing ones are counted but give no number: a row without a finished cell has None
for every figure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from scipy import special

from pocketvit.runs.balance import balance_lines
from pocketvit.runs.hardware import hardware
from pocketvit.runs.result import RunResult
from pocketvit.studies.analysis.power import LEVEL
from pocketvit.studies.analysis.spread import Accuracies
from pocketvit.studies.analysis.stats import Comparison, Summary, compare, rounding_variance, summarise
from pocketvit.studies.analysis.verdict import untold, verdict
from pocketvit.studies.definition.gather import CellResult
from pocketvit.studies.definition.grid import IMAGES_OF, WORD_OF, Study

Kind = Literal["helps", "hurts", "equal", "untold", "failed", "open"]
"""A verdict in one word. equal: no significant difference; untold: too few runs to tell; open: no result yet."""

NOISY_LEVEL = 0.01  # significance level of the test for noisy rows, over all rows of a study together
LEAST_DF = 3  # least degrees of freedom of the other rows for more than one row to be called noisy


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One row of a study, summed up over its runs."""

    row: str
    cells: tuple[CellResult, ...]  # by seed
    accuracy: Summary  # the study's `measure` after the last step, fractions
    test: Summary  # test accuracy or mAP after the last step, fractions; equals `accuracy` if that is the measure
    best_evaluation: Summary
    """The best test accuracy over the evaluations during training, fractions; empty if there were none."""
    comparison: Comparison | None  # None for a row that is not compared
    num_params: float | None
    train_s: float | None
    """Mean over the runs on the study's usual hardware, as the next two: with augmentation, without compiling and
    evaluation."""
    images_per_s: float | None
    peak_memory_gib: float | None

    @property
    def results(self) -> list[RunResult]:
        """The results of the finished cells."""
        return [cell.result for cell in self.cells if cell.result is not None]

    def count(self, state: str) -> int:
        """The number of cells that are done, failed or missing."""
        return sum(cell.state == state for cell in self.cells)

    @property
    def verdict(self) -> str | None:
        """The verdict in words; None without a comparison."""
        if self.comparison is None:
            return None
        return "failed" if self.kind == "failed" else verdict(self.comparison)

    @property
    def kind(self) -> Kind | None:
        """The verdict in one word; None without a comparison."""
        if self.comparison is None:
            return None
        if self.count("failed") == len(self.cells):
            return "failed"
        if self.comparison.difference is None:
            return "open"
        if untold(self.comparison) or self.comparison.p_holm is None:
            return "untold"
        if self.comparison.p_holm > LEVEL:
            return "equal"
        return "helps" if self.comparison.difference > 0 else "hurts"


def accuracies(gathered: Sequence[CellResult], key: str) -> Accuracies:
    """One figure of the finished cells, by row and seed; a row without any is present and empty."""
    found: dict[str, dict[int, float]] = {cell.row: {} for cell in gathered}
    for cell in gathered:
        if cell.result is not None and (figure := getattr(cell.result, key)) is not None:
            found[cell.row][cell.seed] = figure
    return found


def findings(study: Study, gathered: Sequence[CellResult]) -> list[Finding]:
    """Sum up a study, given all its cells, finished or not; the rows are in its order."""
    by_map = WORD_OF[study.measure] == "mAP"
    final, test = (accuracies(gathered, key) for key in (study.measure, "test_map" if by_map else "test_accuracy"))
    best = {} if by_map else accuracies(gathered, "best_test_accuracy")
    comparisons = compare(final, study.compare, apart=noisy_rows(final), least=rounding_variance(final))
    on = hardware(cell.result for cell in gathered if cell.result is not None)
    timed = [cell for cell in gathered if on.counts(cell.result)]
    return [
        Finding(
            row=row.name,
            cells=tuple(sorted((cell for cell in gathered if cell.row == row.name), key=lambda cell: cell.seed)),
            accuracy=summarise(final.get(row.name, {})),
            test=summarise(test.get(row.name, {})),
            best_evaluation=summarise(best.get(row.name, {})),
            comparison=comparisons.get(row.name),
            num_params=_mean(gathered, row.name, "num_params"),
            train_s=_mean(timed, row.name, "train_s"),
            images_per_s=_mean(timed, row.name, "images_per_s"),
            peak_memory_gib=_mean(timed, row.name, "peak_memory_gib"),
        )
        for row in study.rows
    ]


def caveats(study: Study, found: Sequence[Finding]) -> list[str]:
    """A sentence for each reason why an accuracy or a difference may not come from the row itself."""
    shared = dict.fromkeys(f"{line}." for finding in found for result in finding.results for line in result.cautions)
    return [*held_out_in_vain(study), *_on_other_data(study, found), *shared, *_on_uneven_classes(found)]


def held_out_in_vain(study: Study) -> list[str]:
    """A sentence on the rows that hold out validation images although rows are compared on the test images, if any."""
    rows = [row.name for row in study.rows if row.config.data.val_frac]
    if IMAGES_OF[study.measure] == "validation" or not rows:
        return []
    return [
        "Rows are compared on the test images, because not all rows hold out the same validation images. These rows were "
        f"trained on fewer images all the same: {', '.join(rows)}."
    ]


def _on_other_data(study: Study, found: Sequence[Finding]) -> list[str]:
    """A sentence on the rows whose data differ from their reference's, if there are any."""
    data = {f.row: {result.data_fingerprint for result in f.results} for f in found}
    compared = {f.row: f.comparison.reference for f in found if f.comparison and f.comparison.difference is not None}
    rows = [row for row, reference in compared.items() if len(data[row] | data[reference]) > 1]
    if not rows:
        return []
    return [
        "These rows use other data than the row they are compared with, or split or resize them differently, so the "
        f"difference may come from the {IMAGES_OF[study.measure]} images: {', '.join(rows)}."
    ]


def _on_uneven_classes(found: Sequence[Finding]) -> list[str]:
    """A sentence for each row whose accuracy hides something, of its run that is least balanced."""
    uneven = {
        f.row: [(r.balanced_accuracy, r.seed, vars(r)) for r in f.results if balance_lines(vars(r))] for f in found
    }
    return [f"Row {row}, at worst: {'; '.join(balance_lines(min(runs)[2]))}." for row, runs in uneven.items() if runs]


def noisy_rows(found: Accuracies) -> list[str]:
    """Rows that scatter far more than the others, for example because they diverge with some seeds.

    By an F-test of the largest variance over seeds against the others pooled, corrected for the number of rows. Several
    diverging rows would hide each other, so the k-th is also tested against the calmer ones, at least half of the rows.

    Source: Rosner 1983, "Percentage points for a generalized ESD many-outlier procedure",
        https://doi.org/10.1080/00401706.1983.10487848
    Differs: an F-test of variances instead of a t-test of values.
    """
    variances = {row: std**2 for row, values in found.items() if (std := summarise(values).std) is not None}
    rows = sorted(variances, key=lambda row: variances[row])
    df = {row: len(found[row]) - 1 for row in rows}
    least = rounding_variance(found)
    noisy: list[str] = []
    for calm in range(len(rows) - 1, 0, -1):
        calm_df = sum(df[row] for row in rows[:calm])
        if calm < len(rows) - 1 and (2 * calm < len(rows) or calm_df < LEAST_DF):
            break
        usual = max(least, sum(df[row] * variances[row] for row in rows[:calm]) / calm_df)
        p = special.fdtrc(df[rows[calm]], calm_df, variances[rows[calm]] / usual) if usual else 1.0
        if p < NOISY_LEVEL / len(rows):
            noisy = rows[calm:]
    return [row for row in found if row in noisy]


def _mean(gathered: Sequence[CellResult], row: str, key: str) -> float | None:
    """The mean of a figure over a row's finished cells; None without a value."""
    values = list(accuracies(gathered, key).get(row, {}).values())
    return fmean(values) if values else None
