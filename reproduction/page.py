"""docs/paper.md: the paper's claims and numbers compared with ours, made from results/ alone."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pocketvit.files import read_json
from pocketvit.report.text import count
from pocketvit.tables import ABSENT, ABSENT_YET, markdown_table
from reproduction import numbers, texts
from reproduction.claims import BEFORE_MORE_RUNS, CLAIMS, EARLIER, MERGED, Claim
from reproduction.evidence import ADDED, Evidence, read_evidence, study_of
from reproduction.judgement import NOT_MEASURED, Judgement
from reproduction.rules import LEAST_RUNS
from reproduction.run_tables import optimizers_table, runs_table

VERDICTS = ("reproduced", "not reproduced", "cannot be told")
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
        runs_table(evidence, "paper-table2", results),
        texts.TABLE2_NOTE,
        "## Table 3: CLS tokens",
        runs_table(evidence, "paper-table3", results),
        texts.TABLE3_NOTE,
        "## Figure 4: one training step",
        _step(evidence),
        _picture(images, "paper-fig4.png", "The parts of a training step and its heaviest kernels"),
        _whitening(images),
        "## Figure 6: optimizers over time",
        _picture(images, "paper-fig6.png", "Accuracy over training time, a band from the worst to the best seed"),
        optimizers_table(evidence),
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
    return texts.CHANGES.format(verdicts=table, rates=_rates(results / "simulations" / "claims.json"))


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
