"""The page of a study: `study.html`, a self-contained file.

Like the report of a run, the page loads no other file and escapes all names, settings and errors. Its only script copies
commands; the page's policy names that script's hash, so that no other one runs. It links to the reports of its runs by
relative paths.
"""

import base64
import hashlib
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from math import sqrt
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote

from pocketvit.report.curves import SPLITS
from pocketvit.report.study_curves import study_curves
from pocketvit.report.templating import page_environment
from pocketvit.report.text import NBSP, counted, duration, points
from pocketvit.runs.hardware import device, hardware
from pocketvit.runs.result import RunResult
from pocketvit.studies.analysis.findings import Finding, accuracies, noisy_rows
from pocketvit.studies.analysis.spread import pooled_spread
from pocketvit.studies.analysis.stats import Comparison
from pocketvit.studies.analysis.verdict import effect, p_value
from pocketvit.studies.definition.gather import CellResult
from pocketvit.studies.definition.grid import WORD_OF, Study
from pocketvit.studies.execution.launch import command_line

KINDS = {
    "helps": "Helps",
    "hurts": "Hurts",
    "equal": "No significant difference",
    "untold": "Cannot be told",
    "failed": "Failed",
    "open": "No result yet",
}
FAR = 4.0  # effects are cut off at this multiple of the median effect, so that the others remain readable

Effect = tuple[Finding, Comparison, float]  # a row, its comparison and the difference found


def study_page(
    study: Study,
    found: Sequence[Finding],
    figures: Sequence[Mapping[str, str]],
    columns: Sequence[str],
    cost_columns: Sequence[str],
    notes: Sequence[str],
    folder: Path,
) -> str:
    """The page of a study, as HTML.

    Args:
        found: its findings, in the order of its rows.
        figures: the rows of its table, in the same order.
        columns: of its table on outcome; `cost_columns` those of the one on cost.
        notes: how to read the table.
        folder: of the page; links to reports are relative to it.
    """
    cells = [cell for finding in found for cell in finding.cells]
    results = [result for finding in found for result in finding.results]
    on, split, word = hardware(results), study.measure.partition("_")[0], WORD_OF[study.measure]
    title = "Accuracy" if word == "accuracy" else word
    curves = {one.row: [result.curve for result in one.results] for one in found}
    timed = {one.row: [result.curve for result in one.results if on.counts(result)] for one in found}
    effects = [(one, by, by.difference) for one in found if (by := one.comparison) and by.difference is not None]
    references = [comparison.reference for _, comparison, _ in effects]
    environment = page_environment()
    script = environment.get_template("copy.js").render()
    return environment.get_template("study.html.j2").render(
        study=study,
        word=word,
        title=title,
        images=SPLITS[split][0],
        summary=[
            (kind, label, names)
            for kind, label in KINDS.items()
            if (names := [finding.row for finding in found if finding.kind == kind])
        ],
        facts=_facts(study, cells, results),
        rows=[
            {
                "name": row.name,
                "settings": row.overrides,
                "command": f"{shlex.join(command_line(row.config))} --seed SEED",
                "figures": texts,
                "kind": finding.kind,
                "sentence": sentence(finding),
                "cells": [_cell(cell, study, folder) for cell in finding.cells],
            }
            for row, finding, texts in zip(study.rows, found, figures, strict=True)
        ],
        forest=_forest(effects),
        outcome_columns=columns,
        cost_columns=cost_columns,
        notes=notes,
        curve_groups=study_curves(curves, split, references, timed, title),
        failures=[(cell, _link(cell.log, folder)) for cell in cells if cell.state == "failed"],
        origin=_origin(study, cells, results),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _cell(cell: CellResult, study: Study, folder: Path) -> dict[str, Any]:
    """One run, with its accuracy if it is done and the link to its report if there is one."""
    return {
        "seed": cell.seed,
        "state": cell.state,
        "accuracy": cell.result and getattr(cell.result, study.measure),
        "report": _link(cell.folder and cell.folder / "report.html", folder),
    }


def sentence(finding: Finding) -> str:
    """What was found of a row, in words that need no guide."""
    row, comparison, runs = finding.row, finding.comparison, counted(finding.accuracy.num_seeds, "run")
    if finding.count("failed") == len(finding.cells):
        return f"{row} failed in all of its {counted(len(finding.cells), 'run')}."
    if finding.accuracy.mean is None:
        return f"{row} has no result yet."
    spread = "" if finding.accuracy.std is None else f" ± {points(finding.accuracy.std)}"
    reached = f"{100 * finding.accuracy.mean:.2f}{spread}{NBSP}% in {runs}"
    if comparison is None:
        return f"{row} reaches {reached}."
    against, difference = comparison.reference, effect(comparison)
    if finding.kind in ("helps", "hurts") and comparison.p_holm is not None:
        word = "better" if finding.kind == "helps" else "worse"
        return (
            f"{row} is {word} than {against}, by {difference.lstrip('+−')} ({p_value(comparison.p_holm)}): {reached}."
        )
    if finding.kind == "equal":
        detectable = f"a difference of {points(comparison.detectable or 0.0)} would most likely have shown"
        return (
            f"{row} differs from {against} by no more than chance may explain ({difference}; {detectable}): {reached}."
        )
    if finding.kind == "untold":
        return f"{row} has too few runs to be told from {against} ({difference}): {reached}."
    return f"{row} waits for the runs of {against}: {reached}."


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


def _forest(effects: Sequence[Effect]) -> dict[str, Any] | None:
    """The positions of the differences and their intervals on a common axis, in percent of its length."""
    if not effects:
        return None
    ends = [(difference, *(comparison.interval or ())) for _, comparison, difference in effects]
    reach = [max(map(abs, values[1:] or values)) for values in ends]
    # The axis includes zero and every interval, except those far beyond the others.
    bound = min(max(reach), FAR * median(reach)) or max(reach) or 0.001
    clipped = [[min(bound, max(-bound, value)) for value in values] for values in ends]
    lowest, highest = min(map(min, clipped)), max(map(max, clipped))
    margin = 0.04 * (highest - lowest)
    start, end = min(0.0, lowest) - margin, max(0.0, highest) + margin

    def position(value: float) -> float:
        return 100 * (value - start) / ((end - start) or 1.0)

    return {
        "zero": position(0.0),
        "start_text": points(start, signed=True),
        "end_text": points(end, signed=True),
        "rows": [
            {
                "finding": finding,
                "text": effect(comparison).removesuffix(" points"),
                "from": position(min(values)),
                "at": position(values[0]),
                "to": position(max(values)),
                "beyond": abs(difference) > bound,
            }
            for (finding, comparison, difference), values in zip(effects, clipped, strict=True)
        ],
    }
