"""Judges of claims about time and memory, by the rules of `rules.py`."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, median

from pocketvit.report.text import count, duration
from pocketvit.runs.result import RunResult
from pocketvit.studies.analysis.stats import compare
from pocketvit.studies.analysis.verdict import p_value
from pocketvit.tables import ABSENT_YET
from reproduction import numbers, rules
from reproduction.evidence import Evidence, Ratio, images_to_reach
from reproduction.judgement import (
    NOT_MEASURED,
    Judge,
    Judgement,
    judgement_of,
    most_accurate,
    of_enough,
    pending,
    times,
)
from reproduction.rules import GOOD

FORMS: Mapping[str, Callable[[float], str]] = {
    "train_s": duration,
    "images_per_s": lambda speed: f"{count(speed)} images/s",
}
"""How to format a figure of a run."""


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
            judgement = judgement_of(False, never, reason)
        else:
            found = compare({name: needed[name] for name in (row, reference)}, {row: reference})[row]
            p = 1.0 if found.p is None else found.p
            reason += f"; {row} − {reference}: {p_value(p)}"
            told = p <= rules.LEVEL
            judgement = judgement_of(told and found.difference < 0, told and found.difference > 0, reason)
        return pending(of_enough(evidence, study, [row, reference], judgement), absent, reason)

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
        row, reference = (most_accurate(evidence, study, names) for names in (rows, references))
        figures = {name: evidence.mean(study, name, key) for name in (row, reference)}
        if None in figures.values():
            return NOT_MEASURED
        ratio = evidence.ratio(study, row, reference, key)
        ours, theirs = (f"{name} {FORMS[key](value)}" for name, value in figures.items())
        reason = f"{ours}{times(ratio)}; {theirs}{remark}"
        if ratio is None:
            return Judgement("cannot be told", f"{reason}: no two runs of each by the same version of our code")
        judgement = judgement_of(ratio.high <= at_most, ratio.low >= from_, reason)
        return of_enough(evidence, study, [row, reference], judgement, key)

    return judge


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
        return judgement_of(min(ratios.values()) <= rules.LESS_MEMORY, False, reason)

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
            f"in batches of 256{times(ratio)}; the paper had four GPUs"
        )
        alone = evidence.ratio(study, row, reference, "train_s")
        if alone is not None:
            reason += f"; on one, {row} relative to {reference}{times(alone)}"
        return judgement_of(ratio.high <= rules.SHORTER, ratio.low >= rules.AS_LONG, reason)

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
    return judgement_of(share >= rules.MOST, share <= rules.HALF, reason)


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
    return judgement_of(apart <= rules.SAME, fails, reason)


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
        f"{count(large['images_per_s'])} in batches of 1024{times(gain)}"
    )
    if {("eager", 128), ("eager", 1024)} <= speeds.keys():
        eager = speeds["eager", 1024]["images_per_s"] / speeds["eager", 128]["images_per_s"]
        reason += f"; × {eager:.1f} without our kernels and without compiling; the paper's GPU is smaller"
    return judgement_of(gain.high <= rules.LEVEL_OFF, gain.low > rules.LEVEL_OFF, reason)


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
