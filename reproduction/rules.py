"""The rules by which a claim of the paper is reproduced: the thresholds, and each rule in words for the page."""

from typing import NamedTuple

from pocketvit.report.text import points

TIMES_JUDGED = 3
"""How often the tables were judged, each time with more runs than before (`texts.CHANGES` tells of them)."""
LEVEL = 0.05 / TIMES_JUDGED
"""Of p: 5 % of false alarms a table in all, an equal part of them each time."""
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


_P = f"p ≤ 0.05 / {TIMES_JUDGED}"
_ALONE = f"the difference is significant ({_P} by a t-test of these two rows, not corrected)"

REACHES = Rule(
    f"the interval of our mean excludes a shortfall of more than {points(MINIMAL)} points",
    "the prediction interval of one more run is entirely below the paper's figure",
)
_THERE = f"the difference is significant ({_P}) and has the claimed sign"
_OTHER = "the difference is significant with the other sign"
EFFECT = Rule(_THERE, _OTHER)
BETTER = Rule(f"{_THERE} between the best rows of both, with all rows measured", _OTHER)
NOTICEABLE = Rule(
    f"{_THERE}, and the whole interval is beyond {points(MINIMAL)} points, which the paper calls minimal",
    "the whole interval is short of that",
)
SIZE = Rule(
    f"{_THERE}, and the whole interval is between half of the claimed size and twice of it",
    "the whole interval is short of half or beyond twice the claimed size",
)
NO_GAIN = Rule(
    f"{_THERE}, and the row does not reach {100 * GOOD:.0f} % with fewer images ({_P}, t-test of the two rows)",
    f"{_OTHER}, or there is no such difference and the row reaches it with fewer images ({_P})",
)
HARMLESS = Rule(
    f"the interval excludes a loss of more than {points(MINIMAL)} points, which the paper calls minimal",
    "the whole interval is beyond that loss",
)
BEST = Rule(f"each of the others is worse ({_P})", f"any of the others is better ({_P})")
SOONER = Rule(
    f"all runs of the fastest row and of its fastest reference reach {100 * GOOD:.0f} %, {_ALONE}, and the row needs "
    "fewer images, with all references measured",
    "the same, but the row needs more; or none of the rows reaches it, and the reference does",
)
QUICKER = Rule(
    f"on several GPUs the ratio is at most {SHORTER}, from the slowest pass to the fastest",
    f"it is at least {AS_LONG}, from the slowest pass to the fastest",
)
SLOWS = Rule(f"the ratio's whole interval is at most {SLOWER}", f"the ratio's whole interval is at least {SLOWER}")
SMALLER = Rule(
    f"for some row the memory is at most {LESS_MEMORY} of the baseline's",
    "never: one implementation can show a potential, but not exclude it",
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
