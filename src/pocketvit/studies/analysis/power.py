"""Power analysis: how many seeds a difference needs, and which difference a number of seeds can detect.

Power is the probability that a two-sided t-test detects a true difference. The test statistic follows a noncentral t
distribution, so nothing is simulated. Differences and standard deviations are fractions.

Source: Cohen 1988, "Statistical power analysis for the behavioral sciences", chapter 2
Differs: the seed variance is pooled over the rows of a study, so the degrees of freedom grow with the rows.
"""

from bisect import bisect_left
from math import inf, sqrt
from typing import Any

from scipy import special

from pocketvit.config.checks import Bounds

POWER = 0.8
"""The usual choice: four of five true differences are detected."""
LEVEL = 0.05
"""Significance level of all comparisons of a study together; each interval has a confidence level of 1 − this."""
MOST_SEEDS = 1_000_000
"""Upper end of the search for enough seeds: more than any difference above std / 100 needs."""


def power_of(difference: float, stderr: float, df: float, *, level: float = LEVEL) -> float:
    """The probability that a t-test detects a true difference, with the right sign.

    Args:
        difference: the true one.
        stderr: the true standard error of its estimate.
        df: degrees of freedom of the estimated standard error.
        level: significance level.
    """
    critical = special.stdtrit(df, 1 - level / 2)
    shift = abs(difference) / stderr
    return float(1 - special.nctdtr(df, shift, critical))


def detectable_difference(stderr: float, df: float, *, power: float = POWER, level: float = LEVEL) -> float:
    """The least difference that a t-test detects with the given power; arguments as in `power_of`."""
    Bounds(level, 1, open_left=True, open_right=True).check("power", power)
    critical = special.stdtrit(df, 1 - level / 2)
    # With few degrees of freedom the estimated standard error may be well above the true one, hence the wide end.
    widest = 3 * critical + 10
    from scipy import optimize  # takes a third of a second to load

    root: Any = optimize.brentq(lambda shift: power_of(shift, 1.0, df, level=level) - power, 0.0, widest)
    return stderr * float(root)  # a pair only for those who ask for more


def pooled_df(num_seeds: int, num_rows: int) -> int:
    """Degrees of freedom of the seed variance in a study whose rows all have the same seeds."""
    return (num_rows - 1) * (num_seeds - 1)


def detectable_with(
    num_seeds: int, std: float, *, num_rows: int = 2, num_comparisons: int = 1, power: float = POWER
) -> float:
    """The least difference between two rows that a planned study detects with the given power; inf for one seed.

    Args:
        num_seeds: of every row.
        std: of a run over seeds, without what pairing removes (`Spread.noise` is its square).
        num_rows: of the study; all of them contribute to the estimated spread.
        num_comparisons: to correct for. The power is that of the first one detected, the hardest.
        power: the probability asked for.
    """
    Bounds(2).check("num_rows", num_rows)
    Bounds(1).check("num_seeds", num_seeds)
    if num_seeds == 1:
        return inf
    stderr, df = std * sqrt(2 / num_seeds), pooled_df(num_seeds, num_rows)
    return detectable_difference(stderr, df, power=power, level=LEVEL / num_comparisons)


def seeds_needed(
    difference: float, std: float, *, num_rows: int = 2, num_comparisons: int = 1, power: float = POWER
) -> int:
    """The seeds per row that a difference needs with the given power; arguments as in `detectable_with`.

    Raises:
        InputError: no spread, or a difference below a hundredth of it, which no study will detect.
    """
    Bounds(0, open_left=True).check("std", std)
    Bounds(std / 100, open_left=True).check("difference", abs(difference))

    def enough(num_seeds: int) -> bool:
        found = detectable_with(num_seeds, std, num_rows=num_rows, num_comparisons=num_comparisons, power=power)
        return found <= abs(difference)

    return bisect_left(range(MOST_SEEDS), True, lo=2, key=enough)
