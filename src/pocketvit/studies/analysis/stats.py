"""Comparisons between the rows of a study, with each row's variance over seeds moderated by that of all rows.

The difference of two rows is that of their means over all their seeds; `spread.py` has the model, the variance of the
difference and its degrees of freedom. What a seed does to every row alike cancels where both rows have the seed. With
two rows that have the same seeds, this is exactly the paired t-test.

If no row has a second seed, a comparison has no p-value and no interval. Rows that scatter many times as much as the
rest, for example because they diverge with some seeds, can be set apart: they share their variance only with the row
they are compared with. From eight seeds on there is also a bootstrap interval, which does not assume normality.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import sqrt

import numpy as np
from scipy import special

from pocketvit.randomness import Stream, uniform
from pocketvit.studies.analysis.power import LEVEL, detectable_difference, moderated, student
from pocketvit.studies.analysis.spread import Accuracies, Layout

BOOTSTRAP_FROM = 8  # the number of seeds from which resampling them is meaningful
BOOTSTRAP_DRAWS = 10_000

NO_SPREAD = 1e-12  # a standard error below this is rounding, not training noise: accuracies move in steps of one image


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Mean and spread of the runs of one row."""

    num_seeds: int
    mean: float | None  # None without a run
    std: float | None  # of a single run (divisor n − 1); None below two runs


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A row against its reference; what cannot be told is None."""

    row: str
    reference: str
    paired: bool  # some seeds of the two are the same, so that what these do to every row cancels
    num_seeds: int  # of the row with fewer
    difference: float | None  # the row's mean accuracy minus the reference's, a fraction
    stderr: float | None = None
    df: float = 0.0  # degrees of freedom of `stderr`
    interval: tuple[float, float] | None = None  # 95 % confidence interval by t, of this comparison alone
    p: float | None = None  # two-sided, of this comparison alone
    p_holm: float | None = None  # corrected for all comparisons of the study: at most 0.05 is significant
    num_comparisons: int = 0  # comparisons that were corrected for: all of the study, measured or not
    detectable: float | None = None
    """The least difference that would have been detected with 80 % power, after the correction."""
    bootstrap: tuple[float, float] | None = None  # 95 % confidence interval by resampling seeds; None below eight seeds


def summarise(values: Mapping[int, float]) -> Summary:
    """Count, mean and standard deviation of one row's accuracies by seed."""
    found = np.array(list(values.values()))
    return Summary(
        num_seeds=len(found),
        mean=float(found.mean()) if len(found) else None,
        std=float(found.std(ddof=1)) if len(found) > 1 else None,
    )


def compare(
    accuracies: Accuracies, pairs: Mapping[str, str], apart: Collection[str] = (), least: float = 0.0
) -> dict[str, Comparison]:
    """Compare rows with their references, corrected for the number of comparisons.

    Comparisons without a result yet count as well: otherwise a half-finished study would report as significant what it
    will not confirm at its end.

    Args:
        accuracies: of all rows of the study; those in no comparison still contribute to the spread.
        pairs: each row's reference, as in `Study.compare`.
        apart: rows too noisy to share the seed variance of the others, see `findings.noisy_rows`.
        least: lower bound of the seed variance, see `rounding_variance`.
    Returns:
        by row, in the order of `pairs`.
    Raises:
        InputError: an accuracy that is not a number.
    """
    pooled = Layout(accuracies, apart, least)
    single, rows = [], {}
    for row, reference in pairs.items():
        two = {name: accuracies.get(name, {}) for name in (row, reference)}
        layout = Layout(two, least=least) if {row, reference} & set(apart) else pooled
        single.append(_compare_two(row, reference, two[row], two[reference], layout))
        rows[row] = len(layout.rows)
    corrected = correct(single)
    num_found = sum(c.p_holm is not None and c.p_holm <= LEVEL for c in corrected)
    return {c.row: _with_detectable(c, num_found, rows[c.row]) for c in corrected}


def correct(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Correct p for all of these comparisons; one without a p yet counts as not significant."""
    adjusted = holm([1.0 if comparison.p is None else comparison.p for comparison in comparisons])
    return [
        replace(comparison, p_holm=None if comparison.p is None else p_holm, num_comparisons=len(comparisons))
        for comparison, p_holm in zip(comparisons, adjusted, strict=True)
    ]


def rounding_variance(accuracies: Accuracies) -> float:
    """The variance of rounding to whole images, with the size of one image inferred from the accuracies.

    With few test images, runs may have equal accuracies by chance although they scatter.
    """
    distinct = sorted({value for values in accuracies.values() for value in values.values()})
    return min((high - low for low, high in pairwise(distinct)), default=0.0) ** 2 / 12


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected by Holm's method, so that all comparisons together have the significance level of one.

    The smallest of m is multiplied by m, the next by m − 1 and so on, and the order is kept. The comparisons need not be
    independent; those with one baseline are not.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure", https://www.jstor.org/stable/4615733
    """
    p = np.array(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted.tolist()


def bootstrap_interval(samples: Sequence[np.ndarray]) -> tuple[float, float]:
    """The 95 % interval of a mean, or of the first mean minus the second, by resampling seeds.

    With few seeds, the plain percentile interval is too short, about as much as a normal quantile with divisor n instead
    of a t quantile with n − 1. Percentiles further out compensate for that. The draws are fixed, so a table is
    reproducible.

    Source: Hesterberg 2015, "What teachers should know about the bootstrap", section 4.3 (the expanded percentile
        interval), https://doi.org/10.1080/00031305.2015.1089789

    Args:
        samples: one array (n,) of paired differences, or two arrays of accuracies, (n1,) and (n2,).
    """
    means = np.zeros(BOOTSTRAP_DRAWS)
    for index, values in enumerate(samples):
        draws = uniform(0, Stream.SAMPLE, index, BOOTSTRAP_DRAWS, len(values))
        resampled = values[(draws * len(values)).astype(int)]  # (draws, n)
        means += (1 - 2 * index) * resampled.mean(axis=1)
    tail = bootstrap_tail(min(map(len, samples)))
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def bootstrap_tail(num_seeds: int) -> float:
    """The share of resampled means outside a 95 % interval on each side: less than 2.5 %."""
    t = special.stdtrit(num_seeds - 1, 1 - LEVEL / 2)
    return float(special.ndtr(-sqrt(num_seeds / (num_seeds - 1)) * t))


# ---------------------------------------------------------------- parts


def _compare_two(
    row: str, reference: str, ours: Mapping[int, float], theirs: Mapping[int, float], layout: Layout
) -> Comparison:
    """One comparison, without the correction for the others."""
    known = Comparison(row=row, reference=reference, paired=False, num_seeds=len(ours), difference=None)
    if not ours or not theirs:
        return known
    shared = set(ours) & set(theirs)
    noise, total = layout.dfs
    samples = [np.array([values[seed] for seed in sorted(values)]) for values in (ours, theirs)]
    difference = float(samples[0].mean() - samples[1].mean())
    num_seeds = min(map(len, samples))
    known = replace(known, paired=bool(shared and (noise or not total)), num_seeds=num_seeds, difference=difference)
    variance, df = layout.error(row, reference, len(shared))
    stderr = sqrt(variance)
    if stderr < NO_SPREAD:
        return known
    half = float(special.stdtrit(df, 1 - LEVEL / 2)) * stderr
    samples = [samples[0] - samples[1]] if set(ours) == set(theirs) else samples
    return replace(
        known,
        stderr=stderr,
        df=df,
        interval=(difference - half, difference + half),
        p=float(2 * special.stdtr(df, -abs(difference) / stderr)),
        bootstrap=bootstrap_interval(samples) if num_seeds >= BOOTSTRAP_FROM else None,
    )


def _with_detectable(comparison: Comparison, num_found: int, num_rows: int) -> Comparison:
    """Add the least difference that would have been detected in a study of so many rows.

    Beside k significant comparisons of m, Holm's method finds one more exactly if its p is at most 0.05 / (m − k).
    """
    if comparison.stderr is None or comparison.p_holm is None:
        return comparison
    others_found = num_found - (comparison.p_holm <= LEVEL)
    level = LEVEL / (comparison.num_comparisons - others_found)
    alike = comparison.paired and comparison.num_seeds > 1
    test = moderated(comparison.num_seeds, num_rows, level) if alike else student(comparison.df, level)
    return replace(comparison, detectable=detectable_difference(comparison.stderr, test))
