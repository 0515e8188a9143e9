"""By which figures a claim of the paper counts as reproduced: the thresholds, and each rule in words for the page."""

from typing import NamedTuple

from pocketvit.report.text import points
from pocketvit.studies.analysis.power import LEVEL

LEAST_RUNS = 3
"""Runs of each row that a verdict asks for: one that diverged must be able to look odd beside its own row's others."""
MINIMAL = 0.0033
"""A loss that the paper calls minimal: that of its low-rank queries, 93.65 to 93.32 %."""
NARROW = 0.0151
"""Half the width up to which an interval that holds the paper's figure says something: a loss that the paper calls
noticeable, 93.65 to 92.14 % without AutoAugment."""
GOOD = 0.9
"""The accuracy on the way at which two rows are timed against each other."""
SHORTER, AS_LONG = 0.8, 0.95
"""Shares of the other's time up to which a run is much faster, and from which it is not."""
SLOWER = 0.99
"""The share of the other's images/s up to which a step takes longer."""
LESS_MEMORY = 0.98
"""The share of the other's memory up to which it is less; the count is exact."""
MOST, HALF = 0.55, 0.5
"""Shares of a step from which a part takes most of it, and up to which it does not; a profile has no spread."""
SAME, OTHER = 1.1, 1.25
"""How far apart two figures of one step may be, as a ratio, and from where on they are not of the same step."""
LEVEL_OFF = 1.25
"""How much faster a batch eight times as large may be for speed to have levelled off."""


class Rule(NamedTuple):
    """What decides a kind of claim; between the two it cannot be told."""

    reproduced: str
    not_reproduced: str


_P = f"p ≤ {LEVEL}"
_ALONE = (
    f"the difference is there ({_P} by a t-test of these two rows, paired on the seeds that both have, not corrected)"
)

REACHES = Rule(
    f"the interval of our mean excludes a shortfall of more than {points(MINIMAL)} points",
    "the prediction interval of one more run lies wholly below the paper's figure",
)
_THERE = f"the difference is there ({_P}), has the claimed sign, and is at least half of the claimed size"
_NOT_THERE = "the interval ends before half of the claimed size, or the difference is there with the other sign"
EFFECT = Rule(_THERE, _NOT_THERE)
SIZE = Rule(
    f"{_THERE} and at most twice of it",
    f"{_NOT_THERE}, or the whole interval lies beyond twice the claimed size",
)
_NO_LOSS = (
    f"the interval excludes a loss of more than {points(MINIMAL)} points, which the paper calls minimal, and no loss is "
    f"seen ({_P})"
)
_LOSS = "the whole interval lies beyond that loss"
HARMLESS = Rule(_NO_LOSS, _LOSS)
HARMLESS_AT_ALL = Rule(_NO_LOSS, f"{_LOSS}, or a smaller one is there ({_P}), where the paper saw none")
BEST = Rule(f"each of the others is worse ({_P})", f"any of the others is better ({_P})")
SOONER = Rule(
    f"all runs of both rows get to {100 * GOOD:.0f} %, {_ALONE}, and the row needs fewer images",
    "the same, and the row needs more; or none of its runs gets there, where all of the other's do",
)
QUICKER = Rule(
    f"on several GPUs the ratio is at most {SHORTER}, from the slowest pass to the fastest",
    f"it is at least {AS_LONG}, from the slowest pass to the fastest",
)
SLOWS = Rule(f"the ratio's whole interval is at most {SLOWER}", f"the ratio's whole interval is at least {SLOWER}")
SMALLER = Rule(
    f"for each row the memory is at most {LESS_MEMORY} of the baseline's",
    f"for each row it is at least {LESS_MEMORY} of the baseline's",
)
BACKWARD = Rule(
    f"its share of a step's time in kernels is at least {100 * MOST:.0f} %", f"the share is at most {100 * HALF:.0f} %"
)
STEP_TIME = Rule(
    f"the paper's two figures of a step differ by a factor of at most {SAME}", f"by a factor of at least {OTHER}"
)
LEVELS_OFF = Rule(
    f"the speeds' ratio is at most {LEVEL_OFF}, from the slowest repeat to the fastest",
    f"it is above {LEVEL_OFF}, from the slowest repeat to the fastest",
)
