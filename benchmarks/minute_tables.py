"""Tables of docs/minute.md: the recipe against the paper's; and of every recipe the rows that it was chosen from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.scaling_tables import measured_findings, noted
from pocketvit.report.text import duration
from pocketvit.studies import compare, load_study, p_value, points
from pocketvit.studies.analysis.findings import accuracies
from pocketvit.studies.analysis.verdict import interval
from pocketvit.studies.output.outputs import table_row
from pocketvit.tables import ABSENT, ABSENT_YET, mean_and_spread

HERE = Path(__file__).parent
SHOWN = ("accuracy (%)", "against", "difference", "training time", "images/s")
LENGTH = ("schedule.passes", "train.eval_every_passes")
"""Fields that follow from a row's speed; passes have their own column."""


def minute_compared(results: Path) -> str:
    """The recipe against the paper's, on their common seeds, in a sentence."""
    studies = {"minute": load_study(HERE / "minute.yaml"), "paper": load_study(HERE / "paper_baseline.yaml")}
    found = {name: measured_findings(study, results)[0] for name, study in studies.items()}
    accuracy = {name: accuracies(finding.cells, studies[name].measure)[name] for name, finding in found.items()}
    compared = compare(accuracy, {"minute": "paper"})["minute"]
    paper = mean_and_spread([100 * value for value in accuracy["paper"].values()])
    kernels = " or ".join(sorted({run.kernels_used for run in found["paper"].results}))
    difference = (
        f"{points(compared.difference, signed=True)} points ({interval(compared.interval)}, {p_value(compared.p)})"
    )
    return (
        f"The paper's baseline reaches {paper} % in {duration(found['paper'].train_s)} with {kernels} kernels. On the "
        f"same {compared.num_seeds} seeds, `minute` differs from it by {difference}; the 95 % interval comes from "
        "Student's t."
    )


def search(results: Path, file: str) -> str:
    """A table of the measured rows of a search, with notes.

    Args:
        results: the folder of all results.
        file: of the study, in benchmarks/.
    """
    study = load_study(HERE / file)
    found = {finding.row: finding for finding in measured_findings(study, results)}
    overrides = {row.name: row.overrides for row in study.rows}
    done = [row for row in study.rows if found[row.name].results]
    rows = []
    for row in done:
        told = table_row(found[row.name])
        before = overrides.get(study.compare.get(row.name), {})
        sets = {field: value for field, value in row.overrides.items() if field not in before or before[field] != value}
        about = {"row": f"`{row.name}`", "sets": _settings(sets), "passes": str(row.config.schedule.passes)}
        rows.append(about | {column: told[column] for column in SHOWN})
    open_rows = ", ".join(f"`{row.name}`" for row in study.rows if row not in done)
    command = f"To run: `pocketvit study benchmarks/{file}`."
    if not done:
        return f"{ABSENT_YET.capitalize()}: {len(study.rows)} rows. {command}"
    note = (
        "Accuracy on the validation images, 5,000 held-out training images, after the last step; one seed each. Sets: "
        f"changes from the row under “against”. {command}"
    )
    texts = [note, *([f"{ABSENT_YET.capitalize()}: {open_rows}."] if open_rows else [])]
    return noted(rows, [found[row.name].results for row in done], texts)


def _settings(overrides: Mapping[str, Any]) -> str:
    """Fields and values in Markdown, without those on a row's length."""
    settings = [f"`{field}` {overrides[field]}" for field in sorted(overrides) if field not in LENGTH]
    return ", ".join(settings) or ABSENT
