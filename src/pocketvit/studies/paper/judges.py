"""Ways to decide a claim of the paper by our results.

Each function here makes a judge: a function of the evidence that says reproduced, not reproduced or cannot be told, and
why, in one sentence with the figures. `claims.py` says by which rules.
"""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Literal, NamedTuple

from pocketvit.report.text import count, duration
from pocketvit.studies.findings import noisy_rows
from pocketvit.studies.paper import numbers
from pocketvit.studies.paper.evidence import Evidence, images_to_reach
from pocketvit.studies.power import LEVEL
from pocketvit.studies.stats import Comparison, compare
from pocketvit.studies.verdict import p_value, points

MINIMAL = 0.0033
"""A loss that the paper calls minimal: that of its low-rank queries, 93.65 to 93.32 %."""
GOOD = 0.9
"""The accuracy on the way at which two rows are timed against each other."""
SHORTER, AS_LONG = 0.8, 0.95
"""Shares of the other's time up to which a run is much faster, and from which it is not."""
SLOWER = 1.01
"""The share of the other's time from which a step takes longer: more than timing scatters by."""
LESS_MEMORY = 0.98
LEVEL_OFF = 1.25
"""How much faster a batch eight times as large may be for speed to have levelled off."""


class Judgement(NamedTuple):
    """What became of a claim."""

    verdict: Literal["reproduced", "not reproduced", "cannot be told"]
    reason: str


Judge = Callable[[Evidence], Judgement]

NOT_MEASURED = Judgement("cannot be told", "not measured yet")


def _judgement(holds: bool, fails: bool, reason: str) -> Judgement:
    return Judgement("reproduced" if holds else "not reproduced" if fails else "cannot be told", reason)


# ---------------------------------------------------------------- accuracy


def reaches(study: str, row: str) -> Judge:
    """The row's best look is at least the paper's, or one run of it may be."""

    def judge(evidence: Evidence) -> Judgement:
        theirs = numbers.published(study, row).accuracy
        ours, interval = evidence.mean(study, row, "best_test_accuracy"), evidence.single_run_interval(study, row)
        if ours is None:
            return NOT_MEASURED
        said = f"ours {100 * ours:.2f} %, as best of the looks"
        if interval is None:
            return Judgement("cannot be told", f"{said}: no spread over seeds is known")
        said += f"; one more run would lie between {100 * interval[0]:.2f} and {100 * interval[1]:.2f} %"
        holds = theirs <= max(ours, interval[1])
        return _judgement(holds, not holds, said)

    return judge


def effect(study: str, row: str, reference: str, claimed: float) -> Judge:
    """The row differs from its reference in the claimed direction, and by half of the claimed size at least."""

    def judge(evidence: Evidence) -> Judgement:
        found = evidence.difference(study, row, reference)
        if found.interval is None:
            return _untold(found)
        sign = 1 if claimed > 0 else -1
        most = max(sign * end for end in found.interval)
        right_way = sign * found.difference > 0
        is_there = found.p_holm <= LEVEL
        enough = most >= abs(claimed) / 2
        reason = f"{_told(found)}; the paper: {points(claimed, signed=True)}"
        return _judgement(is_there and right_way and enough, not enough or (is_there and not right_way), reason)

    return judge


def harmless(study: str, row: str, reference: str, *, at_all: bool = False) -> Judge:
    """The row loses no more than `MINIMAL`; with `at_all`, no loss that can be seen either."""

    def judge(evidence: Evidence) -> Judgement:
        found = evidence.difference(study, row, reference)
        if found.interval is None:
            return _untold(found)
        low, high = found.interval
        reason = f"{_told(found)}; a loss of {points(MINIMAL)} points counts as minimal"
        loses = found.p_holm <= LEVEL and found.difference < 0
        fails = high < -MINIMAL or (at_all and loses)
        return _judgement(low >= -MINIMAL and not fails, fails, reason)

    return judge


def best_of(study: str, row: str, others: Sequence[str]) -> Judge:
    """The row beats each of the others."""

    def judge(evidence: Evidence) -> Judgement:
        accuracies = evidence.figures(study, "test_accuracy")
        found = compare(accuracies, dict.fromkeys(others, row), apart=noisy_rows(accuracies))
        if any(comparison.difference is None for comparison in found.values()):
            return NOT_MEASURED
        settled = [c for c in found.values() if c.p_holm is not None and c.p_holm <= LEVEL]
        better = [c.row for c in settled if c.difference > 0]
        worse = [c.row for c in settled if c.difference < 0]
        reason = ", ".join(f"{c.row} {_told_briefly(c)}" for c in found.values())
        return _judgement(len(worse) == len(others), bool(better), f"against {row}: {reason}")

    return judge


# ---------------------------------------------------------------- cost


def sooner(study: str, row: str, reference: str, also: str | None = None) -> Judge:
    """The row reaches the accuracy `GOOD` after fewer images than its reference; `also` is a row to mention."""

    def judge(evidence: Evidence) -> Judgement:
        names = [row, reference, *([also] if also else [])]
        needed = {name: _images_needed(evidence, study, name) for name in names}
        if not needed[row] or not needed[reference]:
            return NOT_MEASURED
        reason = f"images to {100 * GOOD:.0f} %: " + ", ".join(f"{name} {_millions(needed[name])}" for name in names)
        if None in needed[row].values() or None in needed[reference].values():
            return _judgement(False, set(needed[row].values()) == {None}, reason)
        found = compare({name: needed[name] for name in (row, reference)}, {row: reference})[row]
        if found.p is None:
            return Judgement("cannot be told", reason)
        there = found.p <= LEVEL
        fewer = found.difference < 0
        return _judgement(there and fewer, there and not fewer, f"{reason}; {p_value(found.p)}")

    return judge


def quicker(study: str, row: str, reference: str) -> Judge:
    """The row's training takes much less time than its reference's."""

    def judge(evidence: Evidence) -> Judgement:
        ours, theirs = (evidence.mean(study, name, "train_s") for name in (row, reference))
        if ours is None or theirs is None:
            return NOT_MEASURED
        reason = f"{duration(ours)} against {duration(theirs)} on one GPU, where the paper had four"
        return _judgement(ours <= SHORTER * theirs, ours >= AS_LONG * theirs, reason)

    return judge


def slower(study: str, row: str, reference: str) -> Judge:
    """A step of the row takes longer than one of its reference, at the same batch size."""

    def judge(evidence: Evidence) -> Judgement:
        ours, theirs = (evidence.mean(study, name, "images_per_s") for name in (row, reference))
        if ours is None or theirs is None:
            return NOT_MEASURED
        reason = f"{count(ours)} images/s against {count(theirs)}"
        return _judgement(theirs >= SLOWER * ours, theirs < SLOWER * ours, reason)

    return judge


def smaller(study: str, rows: Sequence[str], reference: str) -> Judge:
    """Training every one of the rows holds less memory than training the reference."""

    def judge(evidence: Evidence) -> Judgement:
        memory = {name: evidence.mean(study, name, "peak_memory_gib") for name in (*rows, reference)}
        if None in memory.values():
            return NOT_MEASURED
        less = [memory[name] <= LESS_MEMORY * memory[reference] for name in rows]
        reason = "most held in training, GiB: " + ", ".join(f"{name} {value:.2f}" for name, value in memory.items())
        return _judgement(all(less), not any(less), reason)

    return judge


def mostly_backward(evidence: Evidence) -> Judgement:
    """More than half of a training step is its backward pass."""
    if evidence.profile is None:
        return NOT_MEASURED
    phases = evidence.profile["phases_ms"]
    share = phases["backward"] / sum(phases.values())
    reason = f"{100 * share:.0f} % of the work of a step, {phases['backward']:.2f} ms"
    return _judgement(share > 0.5, share <= 0.5, reason)


def step_time(evidence: Evidence) -> Judgement:
    """The profiled step is the step of the training; the paper's own numbers already say no."""
    reason = (
        f"by its Table 2 a step takes {numbers.baseline_step_ms():.1f} ms (4,658 s over {numbers.STEPS:,} steps), so "
        "the profiler's own cost is in the figure, or it is of another run"
    )
    seconds = evidence.mean("paper-table2", "baseline", "train_s")
    if seconds is not None:
        reason += f"; ours takes {1e3 * seconds / numbers.STEPS:.2f} ms in training"
        if evidence.profile is not None:
            reason += f" and {evidence.profile['step_ms']:.2f} ms uncaptured, as it is profiled"
    return Judgement("not reproduced", reason)


def levels_off(evidence: Evidence) -> Judgement:
    """Classifying in batches of 1024 is hardly faster than in batches of 128."""
    rows = [row for row in (evidence.bench or {}).get("rows", ()) if row["mode"] == "forward" and row["images_per_s"]]
    speeds = {row["batch_size"]: row["images_per_s"] for row in rows if row["variant"] == "fused"}
    if not {128, 1024} <= speeds.keys():
        return NOT_MEASURED
    gain = speeds[1024] / speeds[128]
    reason = f"{count(speeds[128])} images/s in batches of 128, {count(speeds[1024])} in batches of 1024: × {gain:.2f}"
    return _judgement(gain <= LEVEL_OFF, gain > LEVEL_OFF, reason)


# ---------------------------------------------------------------- words


def _told(found: Comparison) -> str:
    low, high = found.interval
    span = f"{points(low, signed=True)} … {points(high, signed=True)}"
    return f"{points(found.difference, signed=True)} points ({span}), {p_value(found.p_holm)}, n = {found.num_seeds}"


def _told_briefly(found: Comparison) -> str:
    certainty = "no spread known" if found.p_holm is None else p_value(found.p_holm)
    return f"{points(found.difference, signed=True)} ({certainty})"


def _untold(found: Comparison) -> Judgement:
    if found.difference is None:
        return NOT_MEASURED
    said = f"{points(found.difference, signed=True)} points from n = {found.num_seeds}: no spread over seeds is known"
    return Judgement("cannot be told", said)


def _images_needed(evidence: Evidence, study: str, row: str) -> dict[int, float | None]:
    """Images until `GOOD`, by seed; None for a run that never got there."""
    return {seed: images_to_reach(result, GOOD) for seed, result in evidence.runs[study, row].items()}


def _millions(needed: dict[int, float | None]) -> str:
    there = [images for images in needed.values() if images is not None]
    if not needed:
        return "not measured yet"
    if not there:
        return f"never (n = {len(needed)})"
    runs = f"n = {len(needed)}" if len(there) == len(needed) else f"{len(there)} of {len(needed)} runs"
    return f"{fmean(there) / 1e6:.2f} M ({runs})"
