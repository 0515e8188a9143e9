"""Judges, which decide a claim of the paper by our results.

A judge is a function from the evidence to a verdict (reproduced, not reproduced or cannot be told) and a reason, one
sentence with the figures. The rules are in `rules.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from math import copysign, inf
from statistics import fmean, median
from typing import Literal, NamedTuple

from pocketvit.report.text import count, duration, points
from pocketvit.runs.result import RunResult
from pocketvit.studies.analysis.stats import Comparison, compare
from pocketvit.studies.analysis.verdict import interval, p_value
from pocketvit.tables import ABSENT_YET
from reproduction import numbers, rules
from reproduction.evidence import Evidence, Ratio, images_to_reach
from reproduction.rules import GOOD, LEAST_RUNS, MINIMAL

FORMS: Mapping[str, Callable[[float], str]] = {
    "train_s": duration,
    "images_per_s": lambda speed: f"{count(speed)} images/s",
}
"""How to format a figure of a run."""


class Judgement(NamedTuple):
    """The verdict on a claim, with the reason."""

    verdict: Literal["reproduced", "not reproduced", "cannot be told"]
    reason: str


Judge = Callable[[Evidence], Judgement]

NOT_MEASURED = Judgement("cannot be told", ABSENT_YET)


def _judgement(holds: bool, fails: bool, reason: str) -> Judgement:
    return Judgement("reproduced" if holds else "not reproduced" if fails else "cannot be told", reason)


def _of_enough(
    evidence: Evidence, study: str, rows: Sequence[str], judgement: Judgement, key: str = "test_accuracy"
) -> Judgement:
    """The judgement, unless one of its rows has the figure of too few runs."""
    figures = evidence.figures(study, key)
    if min(len(figures[row]) for row in rows) >= LEAST_RUNS:
        return judgement
    return Judgement("cannot be told", f"{judgement.reason}; fewer than {LEAST_RUNS} runs")


# ---------------------------------------------------------------- accuracy


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
        return _of_enough(evidence, study, [row], _judgement(mean[0] >= theirs - MINIMAL, run[1] < theirs, reason))

    return judge


def effect(study: str, row: str, reference: str, claimed: float, *, least: float = 0.0, most: float = inf) -> Judge:
    """The row's difference from its reference, in the claimed direction, is between `least` and `most`."""

    def judge(evidence: Evidence) -> Judgement:
        found = evidence.difference(study, row, reference)
        if found.interval is None:
            return _untold(found)
        low, high = sorted(copysign(1.0, claimed) * end for end in found.interval)
        significant = found.p_holm <= rules.LEVEL
        holds = significant and low >= least and high <= most
        fails = (high < least and (significant or least > 0)) or low > most
        reason = f"{_told(found)}; the paper: {points(claimed, signed=True)}"
        return _of_enough(evidence, study, [row, reference], _judgement(holds, fails, reason))

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
        row, reference = (_most_accurate(evidence, study, names) for names in (rows, references))
        judgement = effect(study, row, reference, claimed)(evidence)
        return _pending(judgement, absent, f"`{row}` − `{reference}`: {judgement.reason}")

    return judge


def _pending(judgement: Judgement, absent: Sequence[str], reason: str) -> Judgement:
    """A judgement that rows still to be measured can refute but not establish."""
    if absent:
        reason += f"; to be measured: {', '.join(absent)}"
    if absent and judgement.verdict == "reproduced":
        return Judgement("cannot be told", reason)
    return judgement._replace(reason=reason)


def no_gain(accuracy: Judge, speed: Judge) -> Judge:
    """The row is worse by `accuracy`, and not faster by `speed`; refuted if it is not worse but faster, or better."""

    def judge(evidence: Evidence) -> Judgement:
        (worse, why), (faster, how) = accuracy(evidence), speed(evidence)
        fails = worse == "not reproduced" or (worse == "cannot be told" and faster == "reproduced")
        if why == NOT_MEASURED.reason:
            return NOT_MEASURED
        return _judgement(worse == "reproduced" and faster != "reproduced", fails, f"{why}; {how}")

    return judge


def harmless(study: str, row: str, reference: str) -> Judge:
    """The row loses no more than `MINIMAL`."""

    def judge(evidence: Evidence) -> Judgement:
        found = evidence.difference(study, row, reference)
        if found.interval is None:
            return _untold(found)
        low, high = found.interval
        reason = f"{_told(found)}; a loss of {points(MINIMAL)} points counts as minimal"
        return _of_enough(evidence, study, [row, reference], _judgement(low >= -MINIMAL, high < -MINIMAL, reason))

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
        reason = ", ".join(f"{c.row} {_told_briefly(c)}" for c in found)
        judgement = _judgement(len(worse) == len(others), bool(better), f"against {row}: {reason}")
        return _of_enough(evidence, study, [row, *others], judgement)

    return judge


# ---------------------------------------------------------------- cost


def sooner(study: str, rows: Sequence[str], references: Sequence[str]) -> Judge:
    """The fastest of the rows reaches the accuracy `GOOD` after fewer images than the fastest of its references.

    Rows not measured yet count as in `best_effect`.
    """

    def judge(evidence: Evidence) -> Judgement:
        needed = {name: _images_needed(evidence, study, name) for name in (*rows, *references)}
        absent = [name for name, of_row in needed.items() if not of_row]
        if set(rows) & set(absent) or set(references) <= set(absent):
            return NOT_MEASURED
        listed = ", ".join(f"{name} {_millions(of_row)}" for name, of_row in needed.items() if of_row)
        reason = f"images to {100 * GOOD:.0f} %: {listed}"
        row, reference = (min(names, key=lambda name: _slowness(needed[name])) for names in (rows, references))
        if None in needed[row].values() or None in needed[reference].values():
            never = set(needed[row].values()) == {None} and None not in needed[reference].values()
            judgement = _judgement(False, never, reason)
        else:
            found = compare({name: needed[name] for name in (row, reference)}, {row: reference})[row]
            p = 1.0 if found.p is None else found.p
            reason += f"; {row} − {reference}: {p_value(p)}"
            told = p <= rules.LEVEL
            judgement = _judgement(told and found.difference < 0, told and found.difference > 0, reason)
        return _pending(_of_enough(evidence, study, [row, reference], judgement), absent, reason)

    return judge


def _slowness(needed: Mapping[int, float | None]) -> tuple[float, float]:
    """Orders rows by the share of runs that get there, and then by the images they need on average."""
    there = [images for images in needed.values() if images is not None]
    return (-len(there) / len(needed), fmean(there)) if there else (1.0 if not needed else 0.0, 0.0)


def less(
    study: str, rows: Sequence[str], references: Sequence[str], key: str, at_most: float, from_: float, remark: str = ""
) -> Judge:
    """A figure of the row is at most `at_most` times the reference's; refuted from `from_` times on.

    Row and reference are the most accurate of several.
    """

    def judge(evidence: Evidence) -> Judgement:
        row, reference = (_most_accurate(evidence, study, names) for names in (rows, references))
        figures = {name: evidence.mean(study, name, key) for name in (row, reference)}
        if None in figures.values():
            return NOT_MEASURED
        ratio = evidence.ratio(study, row, reference, key)
        ours, theirs = (f"{name} {FORMS[key](value)}" for name, value in figures.items())
        reason = f"{ours}{_times(ratio)}; {theirs}{remark}"
        if ratio is None:
            return Judgement("cannot be told", f"{reason}: no two runs of each by the same version of our code")
        judgement = _judgement(ratio.high <= at_most, ratio.low >= from_, reason)
        return _of_enough(evidence, study, [row, reference], judgement, key)

    return judge


def _most_accurate(evidence: Evidence, study: str, rows: Sequence[str]) -> str:
    """The row with the highest mean accuracy after the last step; the first one if none has any."""
    return max(rows, key=lambda row: evidence.mean(study, row, "test_accuracy") or 0.0)


def keeps_less(study: str, rows: Sequence[str], reference: str) -> Judge:
    """Some row keeps less memory than the reference between forward and backward; one that does not refutes nothing."""

    def judge(evidence: Evidence) -> Judgement:
        kept = (evidence.activations or {}).get("saved_mib_per_image", {})
        if not {reference, *rows} <= kept.keys():
            return NOT_MEASURED
        ratios = {row: kept[row] / kept[reference] for row in rows}
        reason = ", ".join(f"{row} {kept[row]:.2f} MiB per image (× {ratio:.3f})" for row, ratio in ratios.items())
        reason += f", {reference} {kept[reference]:.2f}: saved by the reference implementation for its backward pass"
        runs = {row: evidence.mean(study, row, "peak_memory_gib") for row in (*rows, reference)}
        if None not in runs.values():
            low, high = min(runs.values()), max(runs.values())
            reason += f"; with the fused kernels, the peak of whole runs is {low:.3f} to {high:.3f} GiB"
        return _judgement(min(ratios.values()) <= rules.LESS_MEMORY, False, reason)

    return judge


def larger_batches(study: str, row: str, reference: str) -> Judge:
    """On several GPUs, a pass in batches of 1024 takes less time than one in batches of 256.

    The times of the two rows on one GPU are mentioned.
    """

    def judge(evidence: Evidence) -> Judgement:
        counts = [gpus for gpus, batch in evidence.scaling if batch == 1024 and (gpus, 256) in evidence.scaling]
        if max(counts, default=1) == 1:
            return NOT_MEASURED
        large, small = (_image_us(evidence.scaling[max(counts), batch]) for batch in (1024, 256))
        ratio = Ratio(median(large) / median(small), min(large) / max(small), max(large) / min(small))
        reason = (
            f"on {max(counts)} GPUs, an image takes {median(large):.2f} µs in batches of 1024 and {median(small):.2f} µs "
            f"in batches of 256{_times(ratio)}; the paper had four GPUs"
        )
        alone = evidence.ratio(study, row, reference, "train_s")
        if alone is not None:
            reason += f"; on one, {row} relative to {reference}{_times(alone)}"
        return _judgement(ratio.high <= rules.SHORTER, ratio.low >= rules.AS_LONG, reason)

    return judge


def _image_us(result: RunResult) -> list[float]:
    """Microseconds of training per image, by pass, without the first one, a warm-up."""
    passes = result.extra["pass_train_s"]
    images = result.images_seen / len(passes)
    return [1e6 * seconds / images for seconds in passes[1:]]


def mostly_backward(evidence: Evidence) -> Judgement:
    """Most of a training step is its backward pass."""
    if evidence.profile is None:
        return NOT_MEASURED
    phases = evidence.profile["phases_ms"]
    share = phases["backward"] / sum(phases.values())
    reason = f"{100 * share:.0f} % of a step's work, {phases['backward']:.2f} ms on one {evidence.profile['device']}"
    return _judgement(share >= rules.MOST, share <= rules.HALF, reason)


def step_time(evidence: Evidence) -> Judgement:
    """The paper's profiled step takes as long as a step of its training."""
    whole_s, step_ms = numbers.published("paper-table2", "baseline").train_s, numbers.baseline_step_ms()
    ratio = numbers.WHOLE_STEP_MS / step_ms
    apart = max(ratio, 1 / ratio)
    fails = apart >= rules.OTHER
    reason = (
        f"by its Table 2, a step takes {step_ms:.1f} ms ({count(whole_s)} s for {numbers.STEPS:,} steps): × {ratio:.2f}"
    )
    if fails:
        reason += ", so the figure includes the profiler's overhead, or is from another run"
    seconds = evidence.mean("paper-table2", "baseline", "train_s")
    if seconds is not None:
        device = evidence.hardware("paper-table2").usual
        reason += f"; ours takes {1e3 * seconds / numbers.STEPS:.2f} ms in training on one {device}"
        if evidence.profile is not None:
            profiled = f"{evidence.profile['step_ms']:.2f} ms when profiled on one {evidence.profile['device']}"
            reason += f", and {profiled}, without a CUDA graph"
    return _judgement(apart <= rules.SAME, fails, reason)


def levels_off(evidence: Evidence) -> Judgement:
    """Classification in batches of 1024 is hardly faster than in batches of 128."""
    rows = [row for row in (evidence.bench or {}).get("rows", ()) if row["mode"] == "forward" and row["images_per_s"]]
    speeds = {(row["variant"], row["batch_size"]): row for row in rows}
    if not {("fused", 128), ("fused", 1024)} <= speeds.keys():
        return NOT_MEASURED
    small, large = speeds["fused", 128], speeds["fused", 1024]
    gain = Ratio(
        large["images_per_s"] / small["images_per_s"],
        large["images_per_s_min"] / small["images_per_s_max"],
        large["images_per_s_max"] / small["images_per_s_min"],
    )
    reason = (
        f"on one {evidence.bench['device']}, {count(small['images_per_s'])} images/s in batches of 128 and "
        f"{count(large['images_per_s'])} in batches of 1024{_times(gain)}"
    )
    if {("eager", 128), ("eager", 1024)} <= speeds.keys():
        eager = speeds["eager", 1024]["images_per_s"] / speeds["eager", 128]["images_per_s"]
        reason += f"; × {eager:.1f} without our kernels and without compiling; the paper's GPU is smaller"
    return _judgement(gain.high <= rules.LEVEL_OFF, gain.low > rules.LEVEL_OFF, reason)


# ---------------------------------------------------------------- words


def _told(found: Comparison) -> str:
    size, ends = points(found.difference, signed=True), interval(found.interval)
    return f"{size} points ({ends}), {p_value(found.p_holm)}, n = {found.num_seeds}"


def _told_briefly(found: Comparison) -> str:
    certainty = "unknown spread" if found.p_holm is None else p_value(found.p_holm)
    return f"{points(found.difference, signed=True)} ({certainty})"


def _untold(found: Comparison) -> Judgement:
    if found.difference is None:
        return NOT_MEASURED
    reason = f"{points(found.difference, signed=True)} points from n = {found.num_seeds}: unknown spread over seeds"
    return Judgement("cannot be told", reason)


def _times(ratio: Ratio | None) -> str:
    return f", × {ratio.middle:.3f} ({ratio.low:.3f} – {ratio.high:.3f})" if ratio else ""


def _images_needed(evidence: Evidence, study: str, row: str) -> dict[int, float | None]:
    """Images until `GOOD`, by seed; None for a run that never reached it."""
    return {seed: images_to_reach(result, GOOD) for seed, result in evidence.runs[study, row].items()}


def _millions(needed: dict[int, float | None]) -> str:
    there = [images for images in needed.values() if images is not None]
    if not needed:
        return ABSENT_YET
    if not there:
        return f"never (n = {len(needed)})"
    runs = f"n = {len(needed)}" if len(there) == len(needed) else f"{len(there)} of {len(needed)} runs"
    return f"{fmean(there) / 1e6:.2f} M ({runs})"
