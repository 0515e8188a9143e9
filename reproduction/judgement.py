"""Judgements of a claim of the paper: the verdict, and the sentence that gives its reason."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from pocketvit.report.text import points
from pocketvit.studies.analysis.stats import Comparison
from pocketvit.studies.analysis.verdict import interval, p_value
from pocketvit.tables import ABSENT_YET
from reproduction.evidence import Evidence, Ratio
from reproduction.rules import LEAST_RUNS


class Judgement(NamedTuple):
    """The verdict on a claim, with the reason."""

    verdict: Literal["reproduced", "not reproduced", "cannot be told"]
    reason: str


Judge = Callable[[Evidence], Judgement]
"""Decides a claim by our results."""

NOT_MEASURED = Judgement("cannot be told", ABSENT_YET)


def judgement_of(holds: bool, fails: bool, reason: str) -> Judgement:
    """The verdict on a claim that our results bear out, or refute, or neither."""
    return Judgement("reproduced" if holds else "not reproduced" if fails else "cannot be told", reason)


def of_enough(
    evidence: Evidence, study: str, rows: Sequence[str], judgement: Judgement, key: str = "test_accuracy"
) -> Judgement:
    """The judgement, unless one of its rows has the figure of too few runs."""
    figures = evidence.figures(study, key)
    if min(len(figures[row]) for row in rows) >= LEAST_RUNS:
        return judgement
    return Judgement("cannot be told", f"{judgement.reason}; fewer than {LEAST_RUNS} runs")


def pending(judgement: Judgement, absent: Sequence[str], reason: str) -> Judgement:
    """A judgement that rows still to be measured can refute but not establish."""
    if absent:
        reason += f"; to be measured: {', '.join(absent)}"
    if absent and judgement.verdict == "reproduced":
        return Judgement("cannot be told", reason)
    return judgement._replace(reason=reason)


def most_accurate(evidence: Evidence, study: str, rows: Sequence[str]) -> str:
    """The row with the highest mean accuracy after the last step; the first one if none has any."""
    return max(rows, key=lambda row: evidence.mean(study, row, "test_accuracy") or 0.0)


def told(found: Comparison) -> str:
    """A difference with its interval, p and number of seeds."""
    size, ends = points(found.difference, signed=True), interval(found.interval)
    return f"{size} points ({ends}), {p_value(found.p_holm)}, n = {found.num_seeds}"


def told_briefly(found: Comparison) -> str:
    """A difference with its p."""
    certainty = "unknown spread" if found.p_holm is None else p_value(found.p_holm)
    return f"{points(found.difference, signed=True)} ({certainty})"


def untold(found: Comparison) -> Judgement:
    """The judgement by a difference without an interval."""
    if found.difference is None:
        return NOT_MEASURED
    reason = f"{points(found.difference, signed=True)} points from n = {found.num_seeds}: unknown spread over seeds"
    return Judgement("cannot be told", reason)


def times(ratio: Ratio | None) -> str:
    """A ratio with its interval, to be added to a sentence."""
    return f", × {ratio.middle:.3f} ({ratio.low:.3f} – {ratio.high:.3f})" if ratio else ""
