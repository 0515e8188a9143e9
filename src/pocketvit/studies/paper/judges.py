"""Ways to decide a claim of the paper by our results.

Each function here makes a judge: a function of the evidence that says reproduced, not reproduced or cannot be told, and
why, in one sentence with the figures. `rules.py` says by which rules.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Literal, NamedTuple

from pocketvit.report.text import count, duration
from pocketvit.studies.paper import numbers, rules
from pocketvit.studies.paper.evidence import Evidence, Ratio, images_to_reach
from pocketvit.studies.paper.rules import GOOD, MINIMAL
from pocketvit.studies.power import LEVEL
from pocketvit.studies.stats import Comparison, compare
from pocketvit.studies.verdict import p_value, points

FORMS: Mapping[str, Callable[[float], str]] = {
    "train_s": duration,
    "images_per_s": lambda speed: f"{count(speed)} images/s",
    "peak_memory_gib": lambda memory: f"{memory:.2f} GiB",
}
"""How a figure of a run is written."""


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
    """The row's best look is on average no more than `MINIMAL` below the paper's."""

    def judge(evidence: Evidence) -> Judgement:
        theirs, ours = numbers.published(study, row).accuracy, evidence.mean(study, row, "best_test_accuracy")
        if ours is None:
            return NOT_MEASURED
        said = f"ours {100 * ours:.2f} %, as best of the looks"
        mean, run = (evidence.best_look_interval(study, row, of_mean=of_mean) for of_mean in (True, False))
        if mean is None or run is None:
            return Judgement("cannot be told", f"{said}: no spread over seeds is known")
        said += (
            f"; the mean over all seeds lies between {100 * mean[0]:.2f} and {100 * mean[1]:.2f} %, one more run would "
            f"between {100 * run[0]:.2f} and {100 * run[1]:.2f} %"
        )
        return _judgement(mean[0] >= theirs - MINIMAL, run[1] < theirs, said)

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
        found = [evidence.difference(study, other, row) for other in others]
        if any(comparison.difference is None for comparison in found):
            return NOT_MEASURED
        settled = [c for c in found if c.p_holm is not None and c.p_holm <= LEVEL]
        better = [c.row for c in settled if c.difference > 0]
        worse = [c.row for c in settled if c.difference < 0]
        reason = ", ".join(f"{c.row} {_told_briefly(c)}" for c in found)
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


def less(
    study: str, rows: Sequence[str], reference: str, key: str, at_most: float, from_: float, note: str = ""
) -> Judge:
    """A figure of every one of the rows is at most `at_most` times the reference's; it is not from `from_` on."""

    def judge(evidence: Evidence) -> Judgement:
        figures = {name: evidence.mean(study, name, key) for name in (reference, *rows)}
        if None in figures.values():
            return NOT_MEASURED
        ratios = [evidence.ratio(study, name, reference, key) for name in rows]
        said = {name: f"{name} {FORMS[key](value)}" for name, value in figures.items()}
        ours = "; ".join(said[name] + _times(ratio) for name, ratio in zip(rows, ratios, strict=True))
        reason = f"{ours}; {said[reference]}{note}"
        if None in ratios:
            return Judgement("cannot be told", f"{reason}: no spread over seeds is known")
        return _judgement(
            all(ratio.high <= at_most for ratio in ratios), all(ratio.low >= from_ for ratio in ratios), reason
        )

    return judge


def mostly_backward(evidence: Evidence) -> Judgement:
    """Most of a training step is its backward pass."""
    if evidence.profile is None:
        return NOT_MEASURED
    phases = evidence.profile["phases_ms"]
    share = phases["backward"] / sum(phases.values())
    reason = f"{100 * share:.0f} % of the work of a step, {phases['backward']:.2f} ms"
    return _judgement(share >= rules.MOST, share <= rules.HALF, reason)


def step_time(evidence: Evidence) -> Judgement:
    """The profiled step is the step of the training, by the paper's own numbers."""
    whole_s, step_ms = numbers.published("paper-table2", "baseline").train_s, numbers.baseline_step_ms()
    ratio = numbers.WHOLE_STEP_MS / step_ms
    apart = max(ratio, 1 / ratio)
    fails = apart >= rules.OTHER
    reason = (
        f"by its Table 2 a step takes {step_ms:.1f} ms ({count(whole_s)} s over {numbers.STEPS:,} steps): × {ratio:.2f}"
    )
    if fails:
        reason += ", so the profiler's own cost is in the figure, or it is of another run"
    seconds = evidence.mean("paper-table2", "baseline", "train_s")
    if seconds is not None:
        reason += f"; ours takes {1e3 * seconds / numbers.STEPS:.2f} ms in training"
        if evidence.profile is not None:
            reason += f" and {evidence.profile['step_ms']:.2f} ms uncaptured, as it is profiled"
    return _judgement(apart <= rules.SAME, fails, reason)


def levels_off(evidence: Evidence) -> Judgement:
    """Classifying in batches of 1024 is hardly faster than in batches of 128."""
    rows = [row for row in (evidence.bench or {}).get("rows", ()) if row["mode"] == "forward" and row["images_per_s"]]
    speeds = {row["batch_size"]: row for row in rows if row["variant"] == "fused"}
    if not {128, 1024} <= speeds.keys():
        return NOT_MEASURED
    small, large = speeds[128], speeds[1024]
    gain = Ratio(
        large["images_per_s"] / small["images_per_s"],
        large["images_per_s_min"] / small["images_per_s_max"],
        large["images_per_s_max"] / small["images_per_s_min"],
    )
    reason = (
        f"{count(small['images_per_s'])} images/s in batches of 128, {count(large['images_per_s'])} in batches of 1024"
    )
    return _judgement(gain.high <= rules.LEVEL_OFF, gain.low > rules.LEVEL_OFF, reason + _times(gain))


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


def _times(ratio: Ratio | None) -> str:
    return f", × {ratio.middle:.3f} ({ratio.low:.3f} – {ratio.high:.3f})" if ratio else ""


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
