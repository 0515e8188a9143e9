"""What the accuracies of a study's rows say about their differences, with the seed variance pooled over the rows.

With one to three seeds a row, a row's own spread is hardly known: from two seeds a t-test has one degree of freedom
and needs a difference of 12.7 standard errors. What a study has plenty of is rows. Training noise differs little
between variants of one recipe, so all rows estimate it together.

The model: row r with seed s ends at y[r, s] = row[r] + seed[s] + noise, where the noise is independent and normal with
one variance for all rows. seed[s] is what a seed does to every row alike (the same order of images, the same crops).

- Paired, where a row shares seeds with its reference: the difference d is the mean over the k shared seeds, and
  seed[s] drops out. The noise variance v is the residual mean square of the two-way layout (least squares with one
  parameter a row and one a seed, over all rows), with as many degrees of freedom as there are runs beyond independent
  parameters: (R − 1)(n − 1) for R rows with the same n seeds. d has the variance 2v / k. With two rows, this is the
  paired t-test exactly.
- Unpaired, where they share none, or where nothing is left to estimate v from: the difference of the two means, whose
  variance is w (1/n1 + 1/n2). Here w, the spread between runs of a row, seed[s] included, is pooled over the rows'
  deviations from their own means. Rows with the same seeds repeat seed[s] and are no independent evidence on it, so
  the degrees of freedom count them as if seed[s] were all there is: n − 1 for R rows with the same n seeds, and the
  full number where no seed is used twice. That errs on the side of a wider interval.

Where no row has a second seed nothing is known of the noise, and a comparison holds no p-value and no interval. The
t interval is exact if the rows have the same seeds, and slightly too wide otherwise. It misleads if one row is much
noisier than the rest, as one that diverges with some seeds is: such rows can be set apart, and then share their
variance with none but the row that they are compared with. From eight seeds on the bootstrap interval stands beside
it, which assumes neither equal variances nor a normal distribution.

Accuracies are fractions, by row and seed. A run that failed is simply absent.
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
"""Row, seed, fraction of images classified rightly."""

BOOTSTRAP_FROM = 8
"""Seeds from which resampling them means something."""
BOOTSTRAP_DRAWS = 10_000

NO_SPREAD = 1e-12
"""A standard error below this is rounding, not training noise: accuracies move in steps of one image."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The runs of one row."""

    num_seeds: int
    mean: float | None
    """None without a run."""
    std: float | None
    """Of a single run (n − 1 in the divisor); None below two runs."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How runs scatter over seeds, pooled over the rows of a study. A variance without degrees of freedom is None."""

    noise: float | None
    """Variance of a run that pairing leaves: what a seed does to all rows alike is taken out."""
    noise_df: int
    total: float | None
    """Variance of a run of one row over seeds."""
    total_df: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A row against its reference. What cannot be told is None."""

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
    """Corrected for all comparisons of the study: below 0.05 the difference is taken for real."""
    num_comparisons: int = 0
    """Comparisons that were corrected for: all of the study, measured or not."""
    detectable: float | None = None
    """The least difference that would have been found with a probability of 80 %, after the correction."""
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
    """Both seed variances of a study, from all its rows but those apart, see `findings.noisy_rows`.

    Raises:
        InputError: an accuracy that is no number.
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

    Those without a result yet count as well: else a study that is half done would take for real what it will not at
    its end.

    Args:
        accuracies: of all rows of the study; those in no comparison still help to know the spread.
        pairs: each row's reference, as in `Study.compare`.
        apart: rows too noisy to share the seed variance of the others, see `findings.noisy_rows`.
        least: the seed variance is no smaller than this, see `rounding_variance`.
    Returns:
        by row, in the order of `pairs`.
    Raises:
        InputError: an accuracy that is no number.
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
    """Correct p for all of these comparisons; one that has none yet counts as one that finds nothing."""
    adjusted = holm([1.0 if comparison.p is None else comparison.p for comparison in comparisons])
    return [
        replace(comparison, p_holm=None if comparison.p is None else p_holm, num_comparisons=len(comparisons))
        for comparison, p_holm in zip(comparisons, adjusted, strict=True)
    ]


def rounding_variance(accuracies: Accuracies) -> float:
    """The variance of rounding to a whole number of images, as far as the accuracies show how much one image is.

    Of few test images, runs may end alike by chance, which is no sign that they do not scatter.
    """
    distinct = sorted({value for values in accuracies.values() for value in values.values()})
    return min((high - low for low, high in pairwise(distinct)), default=0.0) ** 2 / 12


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected so that all comparisons together raise a false alarm with the chance of a single one.

    The smallest of m is multiplied by m, the next by m − 1 and so on; none falls below one that was smaller before.
    It needs no independence, which comparisons with one baseline do not have.

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

    The plain percentile interval is too short for few seeds, about as much as a normal quantile with the divisor n in
    place of a t quantile with n − 1. Taking percentiles further out makes up for it. The draws are fixed, so a table
    made twice is the same.

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
    """The share of resampled means to leave out on each side for a 95 % interval: less than 2.5 %."""
    t = special.stdtrit(num_seeds - 1, 1 - LEVEL / 2)
    return float(special.ndtr(-sqrt(num_seeds / (num_seeds - 1)) * t))


# ---------------------------------------------------------------- parts


def _compare_two(
    row: str, reference: str, ours: Mapping[int, float], theirs: Mapping[int, float], spread: Spread, least: float
) -> Comparison:
    """One comparison, not yet corrected for the others."""
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
    """Add what could have been found.

    Holm's procedure finds one comparison more, beside k that it found among m, exactly if its p is at most
    0.05 / (m − k).
    """
    if comparison.stderr is None or comparison.p_holm is None:
        return comparison
    others_found = num_found - (comparison.p_holm <= LEVEL)
    level = LEVEL / (comparison.num_comparisons - others_found)
    return replace(comparison, detectable=detectable_difference(comparison.stderr, comparison.df, level=level))


def _indicators(labels: Sequence[str | int]) -> np.ndarray:
    """Which of the distinct labels (columns) each run (row) has: 0 or 1, (N, L)."""
    distinct, index = np.unique(np.array(labels), return_inverse=True)
    return np.eye(len(distinct))[index]


def _check_finite(accuracies: Accuracies) -> None:
    for row, values in accuracies.items():
        for seed, value in values.items():
            if not isfinite(value):
                raise InputError(f"accuracy of row {row!r} with seed {seed} is {value}; leave failed runs out")
