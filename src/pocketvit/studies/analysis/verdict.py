"""A comparison in words. Inputs are fractions, texts are in percentage points: 0.0042 is +0.42 points."""

from pocketvit.report.text import points
from pocketvit.studies.analysis.power import LEVEL, POWER
from pocketvit.studies.analysis.stats import Comparison


def verdict(comparison: Comparison) -> str:
    """Whether a row helps, hurts, makes no significant difference, or cannot be told.

    "No significant difference" always comes with the difference that would have been detected, because with few seeds
    the answer depends on the seeds as much as on the row. p is corrected for the other comparisons of the study.
    """
    difference = comparison.difference
    if difference is None:
        return "no result yet"
    if comparison.stderr is None or comparison.interval is None or comparison.p_holm is None:
        return f"cannot be told from n = {comparison.num_seeds} ({effect(comparison)}): unknown spread over seeds"
    # A single run does not show whether it diverged or its row scatters more than the others.
    remarks = [] if comparison.paired else ["unpaired"]
    remarks += ["a single run"] if comparison.num_seeds == 1 else []
    if comparison.p_holm <= LEVEL:
        found = [effect(comparison), p_value(comparison.p_holm), *remarks]
        return f"{'helps' if difference > 0 else 'hurts'} ({', '.join(found)})"
    if untold(comparison):
        return f"cannot be told from n = {comparison.num_seeds} ({effect(comparison)}): too few runs"
    if comparison.p is not None and comparison.p <= LEVEL:
        remarks.insert(0, f"{p_value(comparison.p)} before correction for {comparison.num_comparisons} comparisons")
    remark = f" ({', '.join(remarks)})" if remarks else ""
    detectable = f"one of ± {points(comparison.detectable or 0.0)} points would have been detected"
    return f"no significant difference{remark}; {detectable} ({100 * POWER:.0f} % power)"


def untold(comparison: Comparison) -> bool:
    """Whether there are too few runs: the spread over seeds is unknown, or not even 100 points could be detected."""
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
    """An interval of fractions, in percentage points: −0.10 … +0.42."""
    return " … ".join(points(end, signed=True) for end in ends)


def p_figure(p: float) -> str:
    """A p-value for a table column: 0.34, or < 0.001."""
    return p_value(p).removeprefix("p").strip(" =")


def p_value(p: float) -> str:
    """A p-value with its significant digits: p = 0.34, p = 0.012, p < 0.001."""
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.2f}" if p >= 0.1 else f"p = {p:.2g}"
