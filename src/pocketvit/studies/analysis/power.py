"""Power analysis: how many seeds a difference needs, and which difference a number of seeds can detect.

Power is the probability that the test of `stats.compare` detects a true difference. A test is given by the least
estimates that are significant, in true standard errors, in DRAWS studies whose rows scatter alike: standard errors of
`stats.compare` follow no textbook distribution. Differences and standard deviations are fractions.

Source: Cohen 1988, "Statistical power analysis for the behavioral sciences", chapter 2
"""

from bisect import bisect_left
from functools import lru_cache
from math import inf, sqrt
from typing import Any

import numpy as np
from scipy import special

from pocketvit.config.checks import Bounds
from pocketvit.randomness import Stream, uniform
from pocketvit.studies.analysis.spread import balanced_errors

POWER = 0.8  # the usual choice: four of five true differences are detected
LEVEL = 0.05
"""Significance level of all comparisons of a study together; each interval has a confidence level of 1 − this."""
MOST_SEEDS = 1_000_000  # upper end of the search for enough seeds: more than any difference above std / 100 needs
DRAWS = 2000  # they make a power accurate to half a point
MOST_ROWS, MANY_SEEDS = 20, 25
"""Rows of a drawn study, as more of them hardly change the power; seeds from which two rows' own variances suffice."""


@lru_cache(maxsize=64)
def student(df: float, level: float = LEVEL) -> np.ndarray:
    """The t-test at that significance level, (DRAWS,)."""
    share = (np.arange(DRAWS) + 0.5) / DRAWS
    return special.stdtrit(df, 1 - level / 2) * np.sqrt(special.chdtri(df, share) / df)


@lru_cache(maxsize=64)
def moderated(num_seeds: int, num_rows: int, level: float = LEVEL) -> np.ndarray:
    """The test between two rows of a study whose rows have the same seeds, (DRAWS, up to 3); with two, the t-test."""
    if num_rows == 2 or num_seeds >= MANY_SEEDS:
        return student((num_seeds - 1) * min(2, num_rows - 1), level)
    dims, rows = num_seeds - 1, min(num_rows, MOST_ROWS)
    draws = uniform(0, Stream.SAMPLE, 0, DRAWS, rows * MANY_SEEDS).reshape(DRAWS, rows, MANY_SEEDS)
    noise = special.ndtri(draws[..., :dims].astype(np.float64) + 2.0**-25)  # (DRAWS, rows, dims)
    noise -= noise.mean(1, keepdims=True)
    own = np.sum(noise**2, axis=2) / (dims * (1 - 1 / rows))
    variance, df = (found[:, :3] for found in balanced_errors(own, num_seeds))
    return special.stdtrit(df, 1 - level / 2) * np.sqrt(variance * num_seeds / 2)


def power_of(difference: float, stderr: float, test: np.ndarray) -> float:
    """The probability that a test detects a true difference, with the right sign; `stderr` is the true one."""
    return float(np.mean(special.ndtr(abs(difference) / stderr - test)))


def detectable_difference(stderr: float, test: np.ndarray) -> float:
    """The least difference that a test detects with the power `POWER`; arguments as in `power_of`."""
    from scipy import optimize  # takes a third of a second to load

    root: Any = optimize.brentq(lambda shift: power_of(shift, 1.0, test) - POWER, 0.0, float(test.max()) + 10)
    return stderr * float(root)  # a pair only for those who ask for more


def detectable_with(num_seeds: int, std: float, *, num_rows: int = 2, num_comparisons: int = 1) -> float:
    """The least difference between two rows that a planned study detects with the power `POWER`; inf for one seed.

    Args:
        num_seeds: of every row.
        std: of a run over seeds, without what pairing removes (`Spread.noise` is its square).
        num_rows: of the study; all of them contribute to the estimated spread.
        num_comparisons: to correct for. The power is that of the first one detected, the hardest.
    """
    Bounds(2).check("num_rows", num_rows)
    Bounds(1).check("num_seeds", num_seeds)
    if num_seeds == 1:
        return inf
    test = moderated(num_seeds, num_rows, LEVEL / num_comparisons)
    return detectable_difference(std * sqrt(2 / num_seeds), test)


def seeds_needed(difference: float, std: float, *, num_rows: int = 2, num_comparisons: int = 1) -> int:
    """The seeds per row that a difference needs with the power `POWER`; arguments as in `detectable_with`.

    Raises:
        InputError: no spread, or a difference below a hundredth of it, which no study will detect.
    """
    Bounds(0, open_left=True).check("std", std)
    Bounds(std / 100, open_left=True).check("difference", abs(difference))

    def enough(num_seeds: int) -> bool:
        test = moderated(num_seeds, num_rows, LEVEL / num_comparisons)
        return power_of(difference, std * sqrt(2 / num_seeds), test) >= POWER

    return bisect_left(range(MOST_SEEDS), True, lo=2, key=enough)
