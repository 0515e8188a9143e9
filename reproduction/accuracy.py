"""Judges of claims about accuracy, by the rules of `rules.py`."""

from collections.abc import Sequence
from math import copysign, inf

from pocketvit.report.text import points
from reproduction import numbers, rules
from reproduction.evidence import Evidence
from reproduction.judgement import (
    NOT_MEASURED,
    Judge,
    Judgement,
    judgement_of,
    most_accurate,
    of_enough,
    pending,
    told,
    told_briefly,
    untold,
)
from reproduction.rules import MINIMAL


def reaches(study: str, row: str) -> Judge:
    """The mean of the row's best evaluations is no more than `MINIMAL` below the paper's."""

    def judge(evidence: Evidence) -> Judgement:
        theirs, ours = numbers.published(study, row).accuracy, evidence.mean(study, row, "best_test_accuracy")
        if ours is None:
            return NOT_MEASURED
        reason = f"ours: {100 * ours:.2f} %, best evaluation"
        mean, run = (evidence.best_evaluation_interval(study, row, of_mean=of_mean) for of_mean in (True, False))
        if mean is None or run is None:
            return Judgement("cannot be told", f"{reason}: unknown spread over seeds")
        reason += (
            f"; confidence interval of the mean {100 * mean[0]:.2f} to {100 * mean[1]:.2f} %, prediction interval of "
            f"one more run {100 * run[0]:.2f} to {100 * run[1]:.2f} %"
        )
        return of_enough(evidence, study, [row], judgement_of(mean[0] >= theirs - MINIMAL, run[1] < theirs, reason))

    return judge


def effect(study: str, row: str, reference: str, claimed: float, *, least: float = 0.0, most: float = inf) -> Judge:
    """The row's difference from its reference, in the claimed direction, is between `least` and `most`."""

    def judge(evidence: Evidence) -> Judgement:
        found = evidence.difference(study, row, reference)
        if found.interval is None:
            return untold(found)
        low, high = sorted(copysign(1.0, claimed) * end for end in found.interval)
        significant = found.p_holm <= rules.LEVEL
        holds = significant and low >= least and high <= most
        fails = (high < least and (significant or least > 0)) or low > most
        reason = f"{told(found)}; the paper: {points(claimed, signed=True)}"
        return of_enough(evidence, study, [row, reference], judgement_of(holds, fails, reason))

    return judge


def best_effect(study: str, rows: Sequence[str], references: Sequence[str], claimed: float) -> Judge:
    """The most accurate of the rows is better than the most accurate of its references.

    Further references can only refute this, so it is refuted even if some are not measured yet.
    """

    def judge(evidence: Evidence) -> Judgement:
        means = {name: evidence.mean(study, name, "test_accuracy") for name in (*rows, *references)}
        absent = [name for name, mean in means.items() if mean is None]
        if set(rows) & set(absent) or set(references) <= set(absent):
            return NOT_MEASURED
        row, reference = (most_accurate(evidence, study, names) for names in (rows, references))
        judgement = effect(study, row, reference, claimed)(evidence)
        return pending(judgement, absent, f"`{row}` − `{reference}`: {judgement.reason}")

    return judge


def no_gain(accuracy: Judge, speed: Judge) -> Judge:
    """The row is worse by `accuracy`, and not faster by `speed`; refuted if it is not worse but faster, or better."""

    def judge(evidence: Evidence) -> Judgement:
        (worse, why), (faster, how) = accuracy(evidence), speed(evidence)
        fails = worse == "not reproduced" or (worse == "cannot be told" and faster == "reproduced")
        if why == NOT_MEASURED.reason:
            return NOT_MEASURED
        return judgement_of(worse == "reproduced" and faster != "reproduced", fails, f"{why}; {how}")

    return judge


def harmless(study: str, row: str, reference: str) -> Judge:
    """The row loses no more than `MINIMAL`."""

    def judge(evidence: Evidence) -> Judgement:
        found = evidence.difference(study, row, reference)
        if found.interval is None:
            return untold(found)
        low, high = found.interval
        reason = f"{told(found)}; a loss of {points(MINIMAL)} points counts as minimal"
        return of_enough(evidence, study, [row, reference], judgement_of(low >= -MINIMAL, high < -MINIMAL, reason))

    return judge


def best_of(study: str, row: str, others: Sequence[str]) -> Judge:
    """The row beats each of the others."""

    def judge(evidence: Evidence) -> Judgement:
        found = [evidence.difference(study, other, row) for other in others]
        if any(comparison.difference is None for comparison in found):
            return NOT_MEASURED
        settled = [c for c in found if c.p_holm is not None and c.p_holm <= rules.LEVEL]
        better = [c.row for c in settled if c.difference > 0]
        worse = [c.row for c in settled if c.difference < 0]
        reason = ", ".join(f"{c.row} {told_briefly(c)}" for c in found)
        judgement = judgement_of(len(worse) == len(others), bool(better), f"against {row}: {reason}")
        return of_enough(evidence, study, [row, *others], judgement)

    return judge
