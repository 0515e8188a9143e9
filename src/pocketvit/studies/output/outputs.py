"""Write the findings of a study in these files, for a document, a paper, programs and a reader.

table.md    the table in Markdown, with notes and failures
table.tex   a narrower table in LaTeX, sized for a paper
table.csv   one line per row, all figures in full
cells.csv   one line per cell
study.html  the page with curves, made by `page.py`
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pocketvit.files import write_atomically
from pocketvit.report.text import count, duration, points
from pocketvit.runs.hardware import hardware
from pocketvit.studies.analysis.findings import Finding, accuracies, caveats, noisy_rows
from pocketvit.studies.analysis.power import POWER
from pocketvit.studies.analysis.stats import BOOTSTRAP_FROM
from pocketvit.studies.analysis.verdict import interval, p_figure
from pocketvit.studies.definition.gather import CellResult
from pocketvit.studies.definition.grid import IMAGES_OF, SPELLED, WORD_OF, Measure, Study
from pocketvit.studies.output.latex import study_latex
from pocketvit.studies.output.page import study_page
from pocketvit.tables import ABSENT, markdown_table, markdown_text

OUTCOME_COLUMNS = (
    "row", "n", "accuracy (%)", "std", "test (%)", "best evaluation (%)", "against", "difference", "95 % CI",
    "bootstrap CI", "p", "verdict",
)  # fmt: skip
COST_COLUMNS = ("row", "parameters", "training time", "images/s", "memory (GiB)")

BEST_EVALUATION = "the best test accuracy over the evaluations during training; it is biased upward"
COST_NOTE = (
    "Training time includes augmentation, but not compiling and evaluation; memory is the peak allocated on the GPU."
)
CELL_FIELDS = (
    "test_accuracy", "val_accuracy", "best_test_accuracy", "balanced_accuracy", "majority_share", "train_s", "images_seen",
    "images_per_s", "peak_memory_gib", "num_params", "device", "num_gpus", "config_hash", "data_fingerprint", "commit", "command",
    "test_map", "val_map",
)  # fmt: skip
"""The fields of each result that cells.csv holds."""


def write_outputs(study: Study, found: Sequence[Finding], folder: Path) -> list[Path]:
    """Write all tables and the page of a study, finished or not, to a folder; returns the files.

    `found` are its findings, in the order of its rows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [table_row(finding, study.measure) for finding in found]
    columns, reading = outcome_columns(study, found), notes(study, found)
    texts = {
        "table.md": _markdown(rows, [*columns, *COST_COLUMNS[1:]], found, reading),
        "table.tex": study_latex(study, found),
    }
    for name, content in texts.items():
        (folder / name).write_text(content, encoding="utf-8", errors="backslashreplace")
    _write_csv(folder / "table.csv", [_row_record(study.measure, finding) for finding in found])
    _write_csv(folder / "cells.csv", [_cell_record(cell) for finding in found for cell in finding.cells])
    page = study_page(study, found, rows, columns, COST_COLUMNS, reading, folder)
    write_atomically(folder / "study.html", page.encode(errors="backslashreplace"))
    return [folder / name for name in (*texts, "table.csv", "cells.csv", "study.html")]


def outcome_columns(study: Study, found: Sequence[Finding]) -> list[str]:
    """The columns on outcome, without those that would be empty or repeat the measure."""
    left_out = set()
    if IMAGES_OF[study.measure] == "test":
        left_out.add("test (%)")
    if not any(finding.best_evaluation.num_seeds for finding in found):
        left_out.add("best evaluation (%)")
    if not any(finding.comparison for finding in found):
        left_out |= {"against", "difference", "95 % CI", "p", "verdict"}
    if not _any_bootstrap(found):
        left_out.add("bootstrap CI")
    columns = [column for column in OUTCOME_COLUMNS if column not in left_out]
    return [column.replace("accuracy", WORD_OF[study.measure]) for column in columns]


def table_row(finding: Finding, measure: Measure = "test_accuracy") -> dict[str, str]:
    """A row as plain text, by column; unknown figures are a dash."""
    comparison = finding.comparison
    cells = {
        "row": finding.row,
        "n": runs_text(finding),
        f"{WORD_OF[measure]} (%)": _shown(finding.accuracy.mean, _percent),
        "std": _shown(finding.accuracy.std, _percent),
        "test (%)": _shown(finding.test.mean, _percent),
        "best evaluation (%)": _shown(finding.best_evaluation.mean, _percent),
        "parameters": _shown(finding.num_params, count),
        "training time": _shown(finding.train_s, duration),
        "images/s": _shown(finding.images_per_s, count),
        "memory (GiB)": _shown(finding.peak_memory_gib, "{:.2f}".format),
    }
    if comparison:
        cells |= {
            "against": comparison.reference,
            "difference": _shown(comparison.difference, partial(points, signed=True)),
            "95 % CI": _shown(comparison.interval, interval),
            "bootstrap CI": _shown(comparison.bootstrap, interval),
            "p": _shown(comparison.p_holm, p_figure),
            "verdict": _shown(finding.verdict, str),
        }
    return dict.fromkeys((*OUTCOME_COLUMNS, *COST_COLUMNS), ABSENT) | cells


def runs_text(finding: Finding) -> str:
    """The number of finished runs of a row, and the state of the others: 2 of 3 (1 failed)."""
    done = finding.count("done")
    others = [f"{finding.count(state)} {state}" for state in ("failed", "missing") if finding.count(state)]
    return f"{done} of {len(finding.cells)} ({', '.join(others)})" if others else str(done)


def notes(study: Study, found: Sequence[Finding]) -> list[str]:
    """How to read the table, as plain-text paragraphs."""
    measure = study.measure
    texts = [
        f"{SPELLED[WORD_OF[measure]]}: on the {IMAGES_OF[measure]} images after the last step, mean over seeds and standard "
        "deviation of a single run (n − 1)."
    ]
    if IMAGES_OF[measure] == "validation":
        texts.append("All rows hold these images out of the training images; the test images decide nothing here.")
    if any(finding.best_evaluation.num_seeds for finding in found):
        texts.append(f"Best evaluation: {BEST_EVALUATION}.")
    if any(finding.comparison for finding in found):
        texts.append(
            "Difference: to the mean of the row under “against”, in points, with its 95 % confidence interval (Student's "
            "t, each row's variance over seeds moderated by that of all rows). p is corrected for all comparisons of the "
            "study (Holm); the interval is not."
        )
    if _any_bootstrap(found):
        texts.append(
            f"Bootstrap interval (95 %, from {BOOTSTRAP_FROM} seeds on): by resampling the seeds of the two rows only; it "
            "does not assume a normal distribution. p and the verdict come from t."
        )
    if any(finding.kind == "equal" for finding in found):
        texts.append(
            f"No significant difference: the verdict says which difference the study would have detected with "
            f"{100 * POWER:.0f} % power, corrected for the other comparisons. This is more than half the width of the "
            "interval; a true difference of half that width would be missed about half of the time."
        )
    if noisy := noisy_rows(accuracies([cell for finding in found for cell in finding.cells], measure)):
        texts.append(f"Rows that scatter far more than the others, compared by their own spread: {', '.join(noisy)}.")
    texts += [*caveats(study, found), COST_NOTE]
    usual, others = on = hardware(result for finding in found for result in finding.results)
    if others:
        texts.append(
            f"Times and memory are those on {usual}; other runs were trained on other hardware ({on.said_of_others()})."
        )
    return texts


# ---------------------------------------------------------------- formats


def _markdown(
    rows: Sequence[Mapping[str, str]], columns: Sequence[str], found: Sequence[Finding], reading: Sequence[str]
) -> str:
    """The table, the failures, and the notes."""
    escaped = [{column: markdown_text(text) for column, text in row.items()} for row in rows]
    failed = [
        f"- {markdown_text(f'{cell.row}, seed {cell.seed} failed: ' + (cell.error or 'unknown reason'))}"
        for finding in found
        for cell in finding.cells
        if cell.state == "failed"
    ]
    parts = [markdown_table(escaped, columns), *(["\n".join(failed)] if failed else []), " ".join(reading)]
    return "\n\n".join(parts) + "\n"


def _row_record(measure: Measure, finding: Finding) -> dict[str, Any]:
    """A row of table.csv: fractions, seconds, GiB."""
    comparison = finding.comparison
    low, high = (comparison.interval if comparison else None) or (None, None)
    boot_low, boot_high = (comparison.bootstrap if comparison else None) or (None, None)
    return {
        "row": finding.row,
        "num_done": finding.count("done"),
        "num_failed": finding.count("failed"),
        "num_missing": finding.count("missing"),
        "measure": measure,
        "mean": finding.accuracy.mean,
        "std": finding.accuracy.std,
        "test_mean": finding.test.mean,
        "test_std": finding.test.std,
        "best_evaluation_mean": finding.best_evaluation.mean,
        "best_evaluation_std": finding.best_evaluation.std,
        "reference": comparison and comparison.reference,
        "paired": comparison and comparison.paired,
        "difference": comparison and comparison.difference,
        "ci_low": low,
        "ci_high": high,
        "bootstrap_low": boot_low,
        "bootstrap_high": boot_high,
        "p": comparison and comparison.p,
        "p_holm": comparison and comparison.p_holm,
        "detectable": comparison and comparison.detectable,
        "verdict": finding.verdict,
        "num_params": finding.num_params,
        "train_s": finding.train_s,
        "images_per_s": finding.images_per_s,
        "peak_memory_gib": finding.peak_memory_gib,
    }


def _cell_record(cell: CellResult) -> dict[str, Any]:
    """A row of cells.csv."""
    record = {"row": cell.row, "seed": cell.seed, "state": cell.state, "folder": cell.folder, "error": cell.error}
    return record | {field: cell.result and getattr(cell.result, field) for field in CELL_FIELDS}


def _write_csv(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    with open(path, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.DictWriter(file, fieldnames=list(records[0]) if records else [])
        writer.writeheader()
        writer.writerows(records)


def _any_bootstrap(found: Sequence[Finding]) -> bool:
    return any(finding.comparison and finding.comparison.bootstrap for finding in found)


def _shown(value: Any, form: Callable[[Any], str]) -> str:
    return ABSENT if value is None else form(value)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}"
