"""From the findings of a study to the texts and numbers on its page."""

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from math import sqrt
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pocketvit.report.study_page import PageCell, PageEffect, PageRow, StudyPage
from pocketvit.report.text import NBSP, duration, points
from pocketvit.runs.hardware import Hardware, device, hardware
from pocketvit.runs.result import RunResult
from pocketvit.studies.analysis.findings import Finding, accuracies, noisy_rows
from pocketvit.studies.analysis.spread import pooled_spread
from pocketvit.studies.analysis.verdict import effect
from pocketvit.studies.definition.gather import CellResult
from pocketvit.studies.definition.grid import WORD_OF, Measure, Row, Study
from pocketvit.studies.execution.launch import command_line
from pocketvit.studies.output.story import sentence

KINDS = {
    "helps": "Helps",
    "hurts": "Hurts",
    "equal": "No significant difference",
    "untold": "Cannot be told",
    "failed": "Failed",
    "open": "No result yet",
}


def study_page(
    study: Study,
    found: Sequence[Finding],
    figures: Sequence[Mapping[str, str]],
    columns: tuple[Sequence[str], Sequence[str]],
    notes: Sequence[str],
    folder: Path,
) -> StudyPage:
    """The page of a study.

    Args:
        study: the study.
        found: its findings, in the order of its rows.
        figures: the rows of its table, in the same order.
        columns: of its tables on outcome and on cost.
        notes: how to read the table.
        folder: of the page; links to reports are relative to it.
    """
    cells = [cell for finding in found for cell in finding.cells]
    results = [result for finding in found for result in finding.results]
    on = hardware(results)
    shown = partial(_cell, measure=study.measure, folder=folder, on=on)
    rows = zip(study.rows, found, figures, strict=True)
    return StudyPage(
        name=study.name,
        recipe=study.recipe,
        base=_settings(study.base),
        summary=[
            (kind, label, [finding.row for finding in found if finding.kind == kind])
            for kind, label in KINDS.items()
            if any(finding.kind == kind for finding in found)
        ],
        facts=_facts(study, cells, results),
        rows=[_row(row, finding, texts, [*map(shown, finding.cells)]) for row, finding, texts in rows],
        split=study.measure.partition("_")[0],
        word=WORD_OF[study.measure],
        outcome_columns=columns[0],
        cost_columns=columns[1],
        notes=notes,
        origin=_origin(study, cells, results),
    )


def _row(row: Row, finding: Finding, figures: Mapping[str, str], cells: Sequence[PageCell]) -> PageRow:
    comparison = finding.comparison
    return PageRow(
        name=row.name,
        settings=_settings(row.overrides),
        command=f"{shlex.join(command_line(row.config))} --seed SEED",
        figures=figures,
        kind=finding.kind,
        sentence=sentence(finding),
        effect=None if comparison is None or comparison.difference is None else PageEffect(
            reference=comparison.reference,
            difference=comparison.difference,
            interval=comparison.interval,
            text=effect(comparison).removesuffix(" points"),
        ),
        cells=cells,
    )  # fmt: skip


def _settings(overrides: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Fields and their values as text."""
    return [(field, str(value)) for field, value in overrides.items()]


def _cell(cell: CellResult, *, measure: Measure, folder: Path, on: Hardware) -> PageCell:
    result = cell.result
    return PageCell(
        seed=cell.seed,
        state=cell.state,
        accuracy=result and getattr(result, measure),
        curve=result.curve if result else (),
        timed=on.counts(result),
        error=cell.error,
        report=_link(cell.folder and cell.folder / "report.html", folder),
        log=_link(cell.log, folder),
    )


def _link(path: Path | None, folder: Path) -> str | None:
    """A link from a page in `folder` to a file; None if there is no such file."""
    if path is None or not path.is_file():
        return None
    # A link is a URL: blanks and special characters in folder names must be quoted.
    return quote(Path(os.path.relpath(path, folder)).as_posix())


def _facts(study: Study, cells: Sequence[CellResult], results: Sequence[RunResult]) -> list[tuple[str, str, str]]:
    """Name, value and remark of each fact at the top of the page."""
    absent = [f"{count} {state}" for state in ("failed", "missing") if (count := sum(c.state == state for c in cells))]
    facts = [("Runs", f"{len(results)} of {len(cells)}", ", ".join(absent) or f"all of {len(study.rows)} rows")]
    if results:
        facts.append(("Training time", duration(sum(result.train_s for result in results)), "sum over all runs"))
    final = accuracies(cells, study.measure)
    apart = noisy_rows(final)
    spread = pooled_spread(final, apart)
    if spread.total is not None:
        remark = "standard deviation of a run, pooled" + (f" without {', '.join(apart)}" if apart else "")
        facts.append(("Spread over seeds", f"{points(sqrt(spread.total))}{NBSP}points", remark))
    facts.append(("Device", _listed(result.device for result in results), ""))
    return facts


def _origin(study: Study, cells: Sequence[CellResult], results: Sequence[RunResult]) -> list[tuple[str, str]]:
    """Name and text of each fact about how the runs were made."""
    fields = [
        ("recipe", study.recipe),
        ("seeds", _listed(cell.seed for cell in cells)),
        ("devices", _listed(device(result) for result in results)),
        ("commits", _listed(result.commit for result in results)),
        ("data", _listed(result.data_fingerprint for result in results)),
    ]
    names = dict.fromkeys(name for result in results for name in result.versions)
    return fields + [(name, _listed(result.versions.get(name) for result in results)) for name in names]


def _listed(values: Iterable) -> str:
    """The distinct known values, in order."""
    return ", ".join(dict.fromkeys(str(value) for value in values if value is not None)) or "unknown"
