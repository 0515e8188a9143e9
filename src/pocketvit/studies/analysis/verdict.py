"""A comparison in plain words.

Everything that goes in is a fraction, everything written here is in percentage points: 0.0042 is +0.42 points.
"""

from pocketvit.report.text import points
from pocketvit.studies.analysis.power import LEVEL
from pocketvit.studies.analysis.stats import Comparison


def verdict(comparison: Comparison) -> str:
    """What a comparison says: that the row helps, hurts, that no difference was seen, or that it cannot be told.

    "No difference seen" always says how large a difference would have been seen, because with few seeds the answer
    is about the seeds as much as about the row. p is corrected for the other comparisons of the study.
    """
    difference = comparison.difference
    if difference is None:
        return "no result yet"
    if comparison.stderr is None or comparison.interval is None or comparison.p_holm is None:
        return f"cannot be told from n = {comparison.num_seeds} ({effect(comparison)}): no spread over seeds is known"
    # One run cannot look odd by itself: whether it diverged, say, or its row scatters more than the others.
    remarks = [] if comparison.paired else ["unpaired"]
    remarks += ["a single run"] if comparison.num_seeds == 1 else []
    if comparison.p_holm <= LEVEL:
        found = [effect(comparison), p_value(comparison.p_holm), *remarks]
        return f"{'helps' if difference > 0 else 'hurts'} ({', '.join(found)})"
    if untold(comparison):
        return f"cannot be told from n = {comparison.num_seeds} ({effect(comparison)}): so few runs can tell nothing"
    alone = comparison.p is not None and comparison.p <= LEVEL
    if alone:
        remarks.insert(0, f"alone {p_value(comparison.p)}, one of {comparison.num_comparisons} comparisons")
    remark = f" ({', '.join(remarks)})" if remarks else ""
    return f"no difference seen{remark}: ± {points(comparison.detectable or 0.0)} would have been"


def untold(comparison: Comparison) -> bool:
    """Whether there is too little to go by: no spread over seeds, or not enough to see even 100 points."""
    if comparison.p_holm is None:
        return True
    return comparison.p_holm > LEVEL and (comparison.detectable or 0.0) > 1


def effect(comparison: Comparison) -> str:
    """The difference and half its 95 % interval: +0.42 ± 0.15 points."""
    if comparison.difference is None:
        return ""
    text = points(comparison.difference, signed=True)
    if comparison.interval is not None:
        low, high = comparison.interval
        text += f" ± {points((high - low) / 2)}"
    return text + " points"


def interval(ends: tuple[float, float]) -> str:
    """An interval of fractions in percentage points: −0.10 … +0.42."""
    return " … ".join(points(end, signed=True) for end in ends)


def p_figure(p: float) -> str:
    """A p-value for a column of them: 0.34, or < 0.001."""
    return p_value(p).removeprefix("p").strip(" =")


def p_value(p: float) -> str:
    """A p-value with the digits that matter: p = 0.34, p = 0.012, p < 0.001."""
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.2f}" if p >= 0.1 else f"p = {p:.2g}"
