"""The tables of the paper's runs beside ours: Tables 2 and 3, and the optimizers of Figure 6."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

from pocketvit.files import read_json
from pocketvit.report.text import count, counted, duration, points
from pocketvit.tables import ABSENT, ABSENT_YET, markdown_table, mean_and_spread
from reproduction import numbers, texts
from reproduction.evidence import Evidence, images_to_reach
from reproduction.numbers import PublishedRun
from reproduction.rules import GOOD, LEAST_RUNS, NARROW

AGREES = "agrees"
"""The beginning of the verdict on a row that agrees."""

AGREED_BEFORE = frozenset({
    "baseline", "no-aa", "no-mixup", "no-cutmix", "sincos", "whitening", "mla-kv", "mla-q", "mla-k", "ba", "ba-bs1024"
})  # fmt: skip
"""Rows of Table 2 that agreed on 30 November 2026, by the intervals until then."""


def runs_table(evidence: Evidence, study: str, results: Path) -> str:
    """The paper's rows of one table, followed by those that we added."""
    named = {run.row: run for run in numbers.RUNS if run.study == study}
    order = [*named, *(row for of, row in evidence.runs if of == study and row not in named)]
    rows = [_run_row(evidence, study, row, named.get(row)) for row in order]
    device = evidence.hardware(study).usual or "GPU"
    others = _hardware_note(evidence, study) + _versions_note(evidence, study)
    held = _held(results / "simulations" / "agreement.json")
    note = texts.RUNS_NOTE.format(device=device, narrow=points(NARROW), others=others, held=held)
    agreeing = [named[row] for row, cells in zip(order, rows, strict=True) if cells["verdict"].startswith(AGREES)]
    together = [_together(evidence, study, agreeing)] if len(agreeing) >= 3 else []
    now = {run.row for run in agreeing}
    differ = [f"`{run.row}`" for run in named.values() if run.row in AGREED_BEFORE and run.row not in now]
    if differ and evidence.figures(study, "best_test_accuracy").get("baseline"):
        together.append(f"Agreed by the earlier intervals, which were too wide, and differ now: {', '.join(differ)}.")
    return "\n\n".join([markdown_table(rows, list(rows[0])), note, *_earlier_note(evidence, study), *together])


def _together(evidence: Evidence, study: str, agreeing: Sequence[PublishedRun]) -> str:
    """A sentence on all agreeing rows together."""
    best = evidence.figures(study, "best_test_accuracy")
    away = [fmean(best[run.row].values()) - run.accuracy for run in agreeing]
    above = sum(difference > 0 for difference in away)
    return (
        f"Of the {len(away)} rows that agree with the paper, ours is above its figure in {above}; the mean difference is "
        f"{points(fmean(away), signed=True)} points."
    )


def _run_row(evidence: Evidence, study: str, row: str, run: PublishedRun | None) -> dict[str, str]:
    best = list(evidence.figures(study, "best_test_accuracy")[row].values())
    final = list(evidence.figures(study, "test_accuracy")[row].values())
    return {
        "in the paper": run.where.partition(", ")[2] if run else ABSENT,
        "our row": _our_row(evidence, study, row),
        "paper, best of 20 (%)": f"{100 * run.accuracy:.2f}" if run else ABSENT,
        "ours, best of 20 (%)": mean_and_spread([100 * value for value in best]) if best else ABSENT_YET,
        "ours, last step (%)": mean_and_spread([100 * value for value in final]) if final else ABSENT,
        "n": str(len(final)),
        "verdict": _verdict(evidence, run) if run else "not in the paper",
        "time, paper": duration(run.train_s) if run and run.train_s else ABSENT,
        "time, ours": _cost(evidence, study, row, "train_s", duration),
    }


def _verdict(evidence: Evidence, run: PublishedRun) -> str:
    """Whether the paper's figure agrees with one more run of ours."""
    num_runs = len(evidence.figures(run.study, "best_test_accuracy")[run.row])
    if not num_runs:
        return ABSENT_YET
    interval = evidence.best_evaluation_interval(run.study, run.row)
    if interval is None or num_runs < LEAST_RUNS:
        return f"cannot be told from {counted(num_runs, 'run')}"
    low, high = interval
    half = points((high - low) / 2)
    if low <= run.accuracy <= high:
        return f"{AGREES} (within ± {half})" if high - low <= 2 * NARROW else f"cannot be told (within ± {half})"
    away = points((low + high) / 2 - run.accuracy, signed=True)
    return f"differs: ours {away} (± {half} would agree)"


def optimizers_table(evidence: Evidence) -> str:
    """The rows of Figure 6, with the images that they need to `GOOD`."""
    rows = []
    for (study, row), runs in evidence.runs.items():
        if study != "paper-fig6":
            continue
        final = [100 * result.test_accuracy for result in runs.values()]
        rows.append(
            {"our row": _our_row(evidence, study, row), "n": str(len(runs)),
             "last step (%)": mean_and_spread(final) if final else ABSENT_YET,
             "M images to 90 %": _reached([images_to_reach(result, GOOD) for result in runs.values()]),
             "images/s": _cost(evidence, study, row, "images_per_s", count),
             "training time": _cost(evidence, study, row, "train_s", duration)}
        )  # fmt: skip
    note = (
        (
            "The paper's figure has no readable values to compare with. All rows: Batch Augmentation, batches of 1024, the "
            "paper's learning rate unless the name says otherwise. Muon is in the paper's code, but not in the paper, and is "
            "another one there: it updates the attention's matrices alone, the MLPs go to AdamW, with momentum 0.9, 6 iterations "
            "and no weight decay on its matrices."
        )
        + _hardware_note(evidence, "paper-fig6")
        + _versions_note(evidence, "paper-fig6")
    )
    return "\n\n".join([markdown_table(rows, list(rows[0])), note, *_earlier_note(evidence, "paper-fig6")])


def _reached(needed: Sequence[float | None]) -> str:
    """The mean over the runs that reached the accuracy, and their number."""
    there = [images / 1e6 for images in needed if images is not None]
    if not there:
        return "never" if needed else ABSENT
    return mean_and_spread(there) + ("" if len(there) == len(needed) else f" in {len(there)} of {len(needed)} runs")


def _cost(evidence: Evidence, study: str, row: str, key: str, form: Callable[[float], str]) -> str:
    """The mean of a figure that depends on the hardware: on the study's usual one, else on any, marked.

    Elsewhere the runs of one version of our code count, that of most.
    """
    runs = list(evidence.runs[study, row].values())
    usual = evidence.mean(study, row, key)
    if usual is None and runs:
        commit = Counter(run.commit for run in runs).most_common(1)[0][0]
        return f"{form(fmean(getattr(run, key) for run in runs if run.commit == commit))} †"
    return ABSENT if usual is None else form(usual)


def _our_row(evidence: Evidence, study: str, row: str) -> str:
    return f"`{row}`" + (" ‡" if (study, row) in evidence.earlier else "")


def _held(file: Path) -> str:
    """How often the prediction intervals hold one more run."""
    if not file.is_file():
        return ""
    rows = [row for row in read_json(file)["rows"] if row["layout"] == "table 2"]
    as_here = next(row["share"] for row in rows if row["factor"] == 2.0)  # of seeds in the variance
    shares = {row["factor"]: f"{100 * row['components']:.0f} %" for row in rows if row["share"] == as_here}
    return (
        f" In simulated tables like Table 2, it contains {shares[1.0]} of runs, but {shares[2.0]} of those of a row that "
        "scatters twice as much as the others."
    )


def _earlier_note(evidence: Evidence, study: str) -> list[str]:
    """What the mark at a row of a study means, if one has it."""
    return [texts.EARLIER_NOTE] if any(of == study for of, _ in evidence.earlier) else []


def _hardware_note(evidence: Evidence, study: str) -> str:
    """A note on a study's runs on other hardware, if any."""
    on = evidence.hardware(study)
    return texts.OTHERS_NOTE.format(others=on.said_of_others()) if on.others else ""


def _versions_note(evidence: Evidence, study: str) -> str:
    """A note on rows with times by other versions of our code than the usual one, if any."""
    counts = evidence.hardware(study).counts
    rows = {f"`{row}`": runs.values() for (of, row), runs in evidence.runs.items() if of == study}
    commits = {row: {run.commit for run in runs if counts(run)} for row, runs in rows.items()}
    usual = Counter(commit for found in commits.values() for commit in found).most_common(1)
    others = [row for row, found in commits.items() if found and usual[0][0] not in found]
    partly = [row for row, found in commits.items() if len(found) > 1 and row not in others]
    said = {"Timed by other versions of our code than the rest": others, "In part by other versions": partly}
    return "".join(f" {words}: {', '.join(found)}." for words, found in said.items() if found)
