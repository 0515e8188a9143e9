"""What docs/minute.md shows of results/: the rows that the recipe was chosen from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scaling_tables import measured_findings, noted, runs_of

from pocketvit.report.tables import ABSENT
from pocketvit.studies import load_study
from pocketvit.studies.outputs import table_row

SEARCH_FILE = Path(__file__).with_name("minute_search.yaml")
SHOWN = ("accuracy (%)", "against", "difference", "training time", "images/s")
LENGTH = ("schedule.passes", "train.eval_every_passes")
"""What follows from a row's speed, with a column of its own."""


def minute_search(results: Path) -> str:
    """A table of the study's rows in its order, and how to read it."""
    study = load_study(SEARCH_FILE)
    found = measured_findings(study, results)
    overrides = {row.name: row.overrides for row in study.rows}
    rows = []
    for row, finding in zip(study.rows, found, strict=True):
        told = table_row(finding)
        sets = dict(row.overrides.items() - overrides.get(study.compare.get(row.name), {}).items())
        about = {"row": f"`{row.name}`", "sets": _settings(sets), "passes": str(row.config.schedule.passes)}
        rows.append(about | {column: told[column] for column in SHOWN})
    note = (
        "Accuracy on the validation images, 5,000 training images that were held out, after the last step; one seed "
        "each. Sets: beside what the row under “against” does. To run: `pocketvit study "
        f"benchmarks/{SEARCH_FILE.name}`."
    )
    return noted(rows, [runs_of(finding) for finding in found], [note])


def _settings(overrides: Mapping[str, Any]) -> str:
    """Fields but those on a row's length; Markdown."""
    settings = [f"`{field}` {overrides[field]}" for field in sorted(overrides) if field not in LENGTH]
    return ", ".join(settings) or ABSENT
