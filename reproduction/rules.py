"""The rules by which a claim of the paper is reproduced: the thresholds, and each rule in words for the page."""

from typing import NamedTuple

from pocketvit.report.text import points
from pocketvit.studies.analysis.power import LEVEL

LEAST_RUNS = 3
"""Runs of each row that a verdict needs, so that a diverged run stands out from the others of its row."""
MINIMAL = 0.0033
"""A loss that the paper calls minimal: that of its low-rank queries, 93.65 to 93.32 %."""
NARROW = 0.0151
"""Greatest half-width of an interval for agreement with the paper's figure: a loss that the paper calls noticeable,
93.65 to 92.14 % without AutoAugment."""
GOOD = 0.9
"""The accuracy at which the training progress of two rows is compared."""
SHORTER, AS_LONG = 0.8, 0.95
"""Ratio of times up to which a run is much faster, and from which it is not."""
SLOWER = 0.99
"""Ratio of images/s up to which a step takes longer."""
LESS_MEMORY = 0.98
"""Ratio of memory up to which it is less; the count is exact."""
MOST, HALF = 0.55, 0.5
"""Shares of a step from which a part takes most of it, and up to which it does not; a profile has no spread."""
SAME, OTHER = 1.1, 1.25
"""Ratio up to which two times of a step agree, and from which they do not."""
LEVEL_OFF = 1.25
"""Ratio of speeds up to which an eightfold batch size no longer helps."""


class Rule(NamedTuple):
    """The criteria for a kind of claim; between the two it cannot be told."""

    reproduced: str
    not_reproduced: str


_P = f"p ≤ {LEVEL}"
_ALONE = (
    f"the difference is significant ({_P} by a t-test of these two rows, paired on their common seeds, not corrected)"
)

REACHES = Rule(
    f"the interval of our mean excludes a shortfall of more than {points(MINIMAL)} points",
    "the prediction interval of one more run is entirely below the paper's figure",
)
_THERE = f"the difference is significant ({_P}), has the claimed sign, and is at least half of the claimed size"
_NOT_THERE = "the interval excludes half of the claimed size, or the difference is significant with the other sign"
EFFECT = Rule(_THERE, _NOT_THERE)
SIZE = Rule(
    f"{_THERE} and at most twice of it", f"{_NOT_THERE}, or the whole interval is beyond twice the claimed size"
)
_NO_LOSS = (
    f"the interval excludes a loss of more than {points(MINIMAL)} points, which the paper calls minimal, and there is no "
    f"significant loss ({_P})"
)
_LOSS = "the whole interval is beyond that loss"
HARMLESS = Rule(_NO_LOSS, _LOSS)
HARMLESS_AT_ALL = Rule(_NO_LOSS, f"{_LOSS}, or a smaller loss is significant ({_P}), where the paper saw none")
BEST = Rule(f"each of the others is worse ({_P})", f"any of the others is better ({_P})")
SOONER = Rule(
    f"all runs of both rows reach {100 * GOOD:.0f} %, {_ALONE}, and the row needs fewer images",
    "the same, but the row needs more; or none of its runs reaches it, and all of the other's do",
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
    f"its share of a step's time in kernels is at least {100 * MOST:.0f} %", f"it is at most {100 * HALF:.0f} %"
)
STEP_TIME = Rule(
    f"the paper's two times of a step differ by a factor of at most {SAME}", f"they differ by at least {OTHER}"
)
LEVELS_OFF = Rule(
    f"the ratio of speeds is at most {LEVEL_OFF}, from the slowest repeat to the fastest",
    f"it is above {LEVEL_OFF}, from the slowest repeat to the fastest",
)
