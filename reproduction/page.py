"""docs/paper.md: the paper's claims and numbers compared with ours, made from results/ alone."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

from pocketvit.files import read_json
from pocketvit.report.text import count, counted, duration, points
from pocketvit.tables import ABSENT, ABSENT_YET, markdown_table, mean_and_spread
from reproduction import numbers, texts
from reproduction.claims import BEFORE_MORE_RUNS, CLAIMS, EARLIER, MERGED, Claim
from reproduction.evidence import ADDED, Evidence, images_to_reach, read_evidence, study_of
from reproduction.judges import NOT_MEASURED, Judgement
from reproduction.numbers import PublishedRun
from reproduction.rules import GOOD, LEAST_RUNS, NARROW

VERDICTS = ("reproduced", "not reproduced", "cannot be told")
AGREES = "agrees"
"""The beginning of the verdict on a row that agrees."""

AGREED_BEFORE = frozenset({
    "baseline", "no-aa", "no-mixup", "no-cutmix", "sincos", "whitening", "mla-kv", "mla-q", "mla-k", "ba", "ba-bs1024"
})  # fmt: skip
"""Rows of Table 2 that agreed on 30 November 2026, by the intervals until then."""

SIMULATIONS = "simulations"
"""Under results/, the folder of the outputs of `benchmarks/simulations.py`."""
RATED = {"direction": "a direction", "size": "a size", "old": "before"}
"""Kinds of rules whose rates are simulated, and their names on the page."""


def paper_page(results: Path, images: Path) -> str:
    """The whole page.

    Args:
        results: the folder of all results.
        images: the folder, next to the page, of `paper-fig4.png`, `paper-fig5.png` and `paper-fig6.png`, if any.
    """
    evidence = read_evidence(results)
    parts = [
        texts.HEAD,
        "## The claims",
        _claims(evidence),
        "### The rules",
        _rules(),
        "### The verdicts before",
        _changes(evidence, results),
        "## Table 1: speed",
        _speed(evidence),
        "## Table 2: one change at a time",
        _runs(evidence, "paper-table2", results),
        texts.TABLE2_NOTE,
        "## Table 3: CLS tokens",
        _runs(evidence, "paper-table3", results),
        texts.TABLE3_NOTE,
        "## Figure 4: one training step",
        _step(evidence),
        _picture(images, "paper-fig4.png", "The parts of a training step and its heaviest kernels"),
        _whitening(images),
        "## Figure 6: optimizers over time",
        _picture(images, "paper-fig6.png", "Accuracy over training time, a band from the worst to the best seed"),
        _optimizers(evidence),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _whitening(images: Path) -> str:
    picture = _picture(images, "paper-fig5.png", "48 filters of 4 × 4 pixels: brightness, edges, colors")
    text = "The initial filters of a run of `whitening`, in order of decreasing eigenvalue."
    return f"## Figure 5: whitening filters\n\n{picture}\n\n{text}" if picture else ""


def _picture(images: Path, name: str, words: str) -> str:
    return f"![{words}]({images.name}/{name})" if (images / name).is_file() else ""


def decided_claims(results: Path) -> str:
    """The decided claims in a few lines for the README, without the reasons."""
    judged = _judged(read_evidence(results))
    decided = (f"- **{verdict.capitalize()}:** {_claimed(judged, verdict)}" for verdict in VERDICTS[:2])
    where = "[docs/paper.md](docs/paper.md) has the tables, the rules and the reasons."
    return f"{_totals(judged)} {where}\n\n" + "\n".join(decided)


def _claimed(judged: Sequence[tuple[Claim, Judgement]], verdict: str) -> str:
    """The claims with one verdict, in the paper's order."""
    return " ".join(claim.words for claim, judgement in judged if judgement.verdict == verdict)


def _judged(evidence: Evidence) -> list[tuple[Claim, Judgement]]:
    return [(claim, claim.judge(evidence)) for claim in CLAIMS]


def _totals(judged: Sequence[tuple[Claim, Judgement]]) -> str:
    totals = Counter(judgement.verdict for _, judgement in judged)
    total = ", ".join(f"{totals[v]} {v}" for v in VERDICTS)
    if waiting := sum(judgement == NOT_MEASURED for _, judgement in judged):
        total += f" ({waiting} {ABSENT_YET})"
    return f"{len(judged)} claims: {total}."


def _claims(evidence: Evidence) -> str:
    judged = _judged(evidence)
    rows = [
        {"#": str(number), "claim": claim.words, "where": claim.where, "decided by": claim.decided_by,
         "verdict": f"*{judgement.verdict}*", "reason": judgement.reason}
        for number, (claim, judgement) in enumerate(judged, start=1)
    ]  # fmt: skip
    parts = [_totals(judged), "\n".join(f"- **{v.capitalize()}:** {_claimed(judged, v)}" for v in VERDICTS)]
    if evidence.earlier:
        parts.append("Claims that compare rows marked ‡ below rest on runs to be made again.")
    return "\n\n".join([*parts, folded("Each claim, what decided it, and why", markdown_table(rows, list(rows[0])))])


def folded(summary: str, text: str) -> str:
    """Text that a page shows only when its summary is clicked."""
    return f'<details markdown="1">\n<summary>{summary}</summary>\n\n{text}\n\n</details>'


def _rules() -> str:
    """The rules that decide the claims, with the numbers of their claims, and what they have in common."""
    rows = []
    for rule in dict.fromkeys(claim.rule for claim in CLAIMS):
        of_rule = [str(number) for number, claim in enumerate(CLAIMS, start=1) if claim.rule is rule]
        rows.append(
            {"claims": ", ".join(of_rule), "*reproduced* if": rule.reproduced,
             "*not reproduced* if": rule.not_reproduced}
        )  # fmt: skip
    families = []
    for study, added in ADDED.items():
        name = _title(study)
        others = ", ".join(f"`{row}` − `{reference}`" for row, reference in added.items())
        families.append(f"in {name}, the {len(study_of(study).compare)} of its study, and {others}")
    table = folded("When a claim counts as reproduced, and when not", markdown_table(rows, list(rows[0])))
    return f"{table}\n\n{texts.RULES.format(families='; '.join(families), least=LEAST_RUNS)}"


def _title(study: str) -> str:
    """What the paper calls it: Table 2."""
    return study.removeprefix("paper-").replace("table", "Table ").replace("fig", "Figure ")


def _changes(evidence: Evidence, results: Path) -> str:
    """The verdicts before the rules were changed, and how often the present ones decide."""
    rows = []
    for number, (claim, judgement) in enumerate(_judged(evidence), start=1):
        before = [number + (number > MERGED)] + [number + 1] * (number == MERGED)
        words = "; ".join(f"{old}: {EARLIER[old - 1]}" for old in before)
        verdicts = {
            "before": words,
            "present rules, runs on H100s": BEFORE_MORE_RUNS[number - 1],
            "now": judgement.verdict,
        }
        rows.append({"claim": str(number), "the paper": claim.words} | verdicts)
    table = folded("The verdicts before and now", markdown_table(rows, list(rows[0])))
    return texts.CHANGES.format(verdicts=table, rates=_rates(results / SIMULATIONS / "claims.json"))


def _rates(file: Path) -> str:
    """How often simulated studies reproduce a claim or do not, by its true size and the number of seeds."""
    if not file.is_file():
        return f"{ABSENT_YET.capitalize()}."
    found = {(r["share"], r["seeds"], r["rule"]): r for r in read_json(file)["rows"]}
    seeds = sorted({seeds for _, seeds, _ in found})
    rows = [
        {"true / claimed": f"{share:g}".replace("-", "−"), "rule": RATED[rule]}
        | {f"{n} seeds": " / ".join(f"{100 * found[share, n, rule][key]:.0f}" for key in ("reproduced", "not_reproduced"))
           for n in seeds}
        for rule in RATED
        for share in sorted({share for share, _, _ in found})
    ]  # fmt: skip
    note = "Reproduced / not reproduced, in percent of studies."
    return folded("How often the rules decide", f"{markdown_table(rows, list(rows[0]))}\n\n{note}")


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


def _runs(evidence: Evidence, study: str, results: Path) -> str:
    """The paper's rows of one table, followed by those that we added."""
    named = {run.row: run for run in numbers.RUNS if run.study == study}
    order = [*named, *(row for of, row in evidence.runs if of == study and row not in named)]
    rows = [_run_row(evidence, study, row, named.get(row)) for row in order]
    device = evidence.hardware(study).usual or "GPU"
    others = _hardware_note(evidence, study) + _versions_note(evidence, study)
    held = _held(results / SIMULATIONS / "agreement.json")
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


def _earlier_note(evidence: Evidence, study: str) -> list[str]:
    """What the mark at a row of a study means, if one has it."""
    return [texts.EARLIER_NOTE] if any(of == study for of, _ in evidence.earlier) else []


def _hardware_note(evidence: Evidence, study: str) -> str:
    """A note on a study's runs on other hardware, if any."""
    on = evidence.hardware(study)
    return texts.OTHERS_NOTE.format(others=on.said_of_others()) if on.others else ""


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


def _speed(evidence: Evidence) -> str:
    measured = {
        (row["mode"], row["batch_size"]): row
        for row in (evidence.bench or {}).get("rows", ())
        if row["variant"] == "fused" and row["images_per_s"]
    }
    rows = []
    for batch_size, (images_per_s, memory) in numbers.SPEED.items():
        forward, step = (measured.get((mode, batch_size)) for mode in ("forward", "step"))
        memory_gib = step["peak_memory_gib"] if step else None
        rows.append(
            {"batch size": str(batch_size), "images/s, paper": count(images_per_s),
             "images/s forward, ours": count(forward["images_per_s"]) if forward else ABSENT_YET,
             "images/s training, ours": count(step["images_per_s"]) if step else ABSENT_YET,
             "memory, paper": f"{memory:.2f} GB",
             "memory training, ours": f"{memory_gib:.2f} GiB" if memory_gib is not None else ABSENT_YET}
        )  # fmt: skip
    where = f"Ours: one {evidence.bench['device']}, bf16, fused kernels." if evidence.bench else f"Ours: {ABSENT_YET}."
    note = (
        'The paper mentions the "forward time" and gives one memory figure per batch size, without saying what they '
        f"include; its GPU is an RTX 3090. {where}"
    )
    return f"{markdown_table(rows, list(rows[0]))}\n\n{note}"


def _step(evidence: Evidence) -> str:
    ours = evidence.profile["phases_ms"] if evidence.profile else {}
    theirs = numbers.STEP_MS | {"everything else": numbers.WHOLE_STEP_MS - sum(numbers.STEP_MS.values())}
    whole = sum(ours.values())
    rows = [
        {"part": part, "paper (ms)": f"{theirs[part]:.1f}" if part in theirs else ABSENT,
         "paper (%)": f"{100 * theirs[part] / numbers.WHOLE_STEP_MS:.0f}" if part in theirs else ABSENT,
         "ours (ms)": f"{ours[part]:.2f}" if part in ours else ABSENT if ours else ABSENT_YET,
         "ours (%)": f"{100 * ours[part] / whole:.0f}" if part in ours else ABSENT}
        for part in dict.fromkeys([*theirs, *ours])
    ]  # fmt: skip
    note = (
        f"Batch size 256. The paper's whole step takes {numbers.WHOLE_STEP_MS} ms here, and by its Table 2 "
        f"{numbers.baseline_step_ms():.1f} ms. Ours: {evidence.profile['device'] if evidence.profile else ABSENT_YET}, sums "
        "over kernels, without the gaps between them."
    )
    return f"{markdown_table(rows, list(rows[0]))}\n\n{note}"


def _optimizers(evidence: Evidence) -> str:
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


def _reached(needed: Sequence[float | None]) -> str:
    """The mean over the runs that reached the accuracy, and their number."""
    there = [images / 1e6 for images in needed if images is not None]
    if not there:
        return "never" if needed else ABSENT
    return mean_and_spread(there) + ("" if len(there) == len(needed) else f" in {len(there)} of {len(needed)} runs")
