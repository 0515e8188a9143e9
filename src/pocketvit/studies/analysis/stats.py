"""Comparisons between the rows of a study, with the seed variance pooled over the rows.

With one to three seeds, a row's own spread is hardly known: from two seeds a t-test has one degree of freedom and needs
a difference of 12.7 standard errors. But a study has many rows, and training noise differs little between variants of
one recipe, so all rows estimate it together.

The model: row r with seed s ends at y[r, s] = row[r] + seed[s] + noise, where the noise is independent and normal with
one variance for all rows. seed[s] is the effect of a seed on every row alike (the same order of images, the same crops).

- Paired, if a row shares seeds with its reference: the difference d is the mean over the k shared seeds, and seed[s]
  cancels. The noise variance v is the residual mean square of the two-way layout (least squares with one parameter per
  row and one per seed, over all rows). Its degrees of freedom are the runs minus the independent parameters:
  (R − 1)(n − 1) for R rows with the same n seeds. d has the variance 2v / k. With two rows, this is exactly the paired
  t-test.
- Unpaired, if they share no seed, or if v cannot be estimated: the difference of the two means, whose variance is
  w (1/n1 + 1/n2). Here w, the variance between runs of a row, seed[s] included, is pooled over the rows' deviations from
  their means. Rows with the same seeds repeat seed[s] and are not independent, so the degrees of freedom are those if
  seed[s] were the only noise: n − 1 for R rows with the same n seeds, and the full number if no seed is used twice. This
  errs on the side of a wider interval.

If no row has a second seed, the noise is unknown, and a comparison has no p-value and no interval. The t interval is
exact if the rows have the same seeds, and slightly too wide otherwise. It misleads if one row is much noisier than the
rest, for example because it diverges with some seeds: such rows can be set apart and then share their variance only
with the row they are compared with. From eight seeds on there is also a bootstrap interval, which assumes neither equal
variances nor a normal distribution.

Accuracies are fractions, by row and seed. A failed run is absent.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import isfinite, sqrt

import numpy as np
from scipy import special

from pocketvit.errors import InputError
from pocketvit.randomness import Stream, uniform
from pocketvit.studies.analysis.power import LEVEL, detectable_difference

Accuracies = Mapping[str, Mapping[int, float]]
"""Row, seed, fraction of images classified correctly."""

BOOTSTRAP_FROM = 8
"""The number of seeds from which resampling them is meaningful."""
BOOTSTRAP_DRAWS = 10_000

NO_SPREAD = 1e-12
"""A standard error below this is rounding, not training noise: accuracies move in steps of one image."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Mean and spread of the runs of one row."""

    num_seeds: int
    mean: float | None
    """None without a run."""
    std: float | None
    """Of a single run (divisor n − 1); None below two runs."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The variance of runs over seeds, pooled over the rows of a study; None without degrees of freedom."""

    noise: float | None
    """Variance of a run that pairing leaves: without the effect of a seed on all rows alike."""
    noise_df: int
    total: float | None
    """Variance of a run of one row over seeds."""
    total_df: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A row against its reference; what cannot be told is None."""

    row: str
    reference: str
    paired: bool
    """Over the same seeds; otherwise the difference of the means."""
    num_seeds: int
    """Shared seeds if paired, otherwise those of the row with fewer."""
    difference: float | None
    """The row's accuracy minus the reference's, a fraction."""
    stderr: float | None = None
    df: float = 0.0
    """Degrees of freedom of `stderr`."""
    interval: tuple[float, float] | None = None
    """95 % confidence interval by t, of this comparison alone."""
    p: float | None = None
    """Two-sided, of this comparison alone."""
    p_holm: float | None = None
    """Corrected for all comparisons of the study: at most 0.05 is significant."""
    num_comparisons: int = 0
    """Comparisons that were corrected for: all of the study, measured or not."""
    detectable: float | None = None
    """The least difference that would have been detected with 80 % power, after the correction."""
    bootstrap: tuple[float, float] | None = None
    """95 % confidence interval by resampling seeds; None below eight seeds."""


def summarise(values: Mapping[int, float]) -> Summary:
    """Count, mean and standard deviation of one row's accuracies by seed."""
    found = np.array(list(values.values()))
    return Summary(
        num_seeds=len(found),
        mean=float(found.mean()) if len(found) else None,
        std=float(found.std(ddof=1)) if len(found) > 1 else None,
    )


def pooled_spread(accuracies: Accuracies, apart: Collection[str] = ()) -> Spread:
    """Both seed variances of a study, from all its rows but those set `apart` (see `findings.noisy_rows`).

    Raises:
        InputError: an accuracy that is not a number.
    """
    _check_finite(accuracies)
    runs = [(row, seed) for row, values in accuracies.items() for seed in values if row not in apart]
    if not runs:
        return Spread(noise=None, noise_df=0, total=None, total_df=0.0)
    y = np.array([accuracies[row][seed] for row, seed in runs])  # (N,), one entry a run
    of_row = _indicators([row for row, _ in runs])  # (N, R)
    of_seed = _indicators([seed for _, seed in runs])  # (N, S)

    both = np.hstack([of_row, of_seed])  # (N, R + S)
    fit, _, rank, _ = np.linalg.lstsq(both, y, rcond=None)
    noise_df = len(y) - int(rank)
    noise = float(np.sum((y - both @ fit) ** 2)) / noise_df if noise_df else None

    runs_in_row = of_row.sum(axis=0)  # (R,)
    deviations = y - of_row @ (of_row.T @ y / runs_in_row)  # (N,)
    count = of_row.T @ of_seed  # (R, S): 1 where there is a run
    centring = np.diag(count.sum(axis=0)) - count.T @ (count / runs_in_row[:, None])  # (S, S)
    within_df = len(y) - of_row.shape[1]
    # Satterthwaite's approximation if all spread came from the seeds: the rows then repeat each other.
    total_df = within_df**2 / float(np.sum(centring**2)) if within_df else 0.0
    total = float(np.sum(deviations**2)) / within_df if within_df else None
    return Spread(noise=noise, noise_df=noise_df, total=total, total_df=total_df)


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
    pooled = pooled_spread(accuracies, apart)
    single = []
    for row, reference in pairs.items():
        two = {name: accuracies.get(name, {}) for name in (row, reference)}
        spread = pooled_spread(two) if {row, reference} & set(apart) else pooled
        single.append(_compare_two(row, reference, two[row], two[reference], spread, least))
    corrected = correct(single)
    num_found = sum(c.p_holm is not None and c.p_holm <= LEVEL for c in corrected)
    return {c.row: _with_detectable(c, num_found) for c in corrected}


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
    row: str, reference: str, ours: Mapping[int, float], theirs: Mapping[int, float], spread: Spread, least: float
) -> Comparison:
    """One comparison, without the correction for the others."""
    shared = sorted(set(ours) & set(theirs))
    # Without noise_df pairing has no error to go by, but several seeds of any row still give the wider one.
    paired = bool(shared) and (spread.noise is not None or spread.total is None)
    if paired:
        samples = [np.array([ours[seed] - theirs[seed] for seed in shared])]
        variance, df = spread.noise, float(spread.noise_df)
        factor = 2 / len(shared)
    elif ours and theirs:
        samples = [np.array([values[seed] for seed in sorted(values)]) for values in (ours, theirs)]
        variance, df = spread.total, spread.total_df
        factor = 1 / len(ours) + 1 / len(theirs)
    else:
        return Comparison(row=row, reference=reference, paired=False, num_seeds=len(ours), difference=None)
    difference = float(samples[0].mean()) - (0.0 if paired else float(samples[1].mean()))
    num_seeds = min(map(len, samples))
    known = Comparison(row=row, reference=reference, paired=paired, num_seeds=num_seeds, difference=difference)
    stderr = sqrt(max(variance, least) * factor) if variance is not None else 0.0
    if stderr < NO_SPREAD:
        return known
    half = float(special.stdtrit(df, 1 - LEVEL / 2)) * stderr
    return replace(
        known,
        stderr=stderr,
        df=df,
        interval=(difference - half, difference + half),
        p=float(2 * special.stdtr(df, -abs(difference) / stderr)),
        bootstrap=bootstrap_interval(samples) if num_seeds >= BOOTSTRAP_FROM else None,
    )


def _with_detectable(comparison: Comparison, num_found: int) -> Comparison:
    """Add the least difference that would have been detected.

    Beside k significant comparisons of m, Holm's method finds one more exactly if its p is at most 0.05 / (m − k).
    """
    if comparison.stderr is None or comparison.p_holm is None:
        return comparison
    others_found = num_found - (comparison.p_holm <= LEVEL)
    level = LEVEL / (comparison.num_comparisons - others_found)
    return replace(comparison, detectable=detectable_difference(comparison.stderr, comparison.df, level=level))


def _indicators(labels: Sequence[str | int]) -> np.ndarray:
    """One-hot encoding of each run's label (N, L)."""
    distinct, index = np.unique(np.array(labels), return_inverse=True)
    return np.eye(len(distinct))[index]


def _check_finite(accuracies: Accuracies) -> None:
    for row, values in accuracies.items():
        for seed, value in values.items():
            if not isfinite(value):
                raise InputError(f"accuracy of row {row!r} with seed {seed} is {value}; leave failed runs out")
