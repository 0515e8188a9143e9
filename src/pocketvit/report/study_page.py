"""The page of a study: `study.html`, a self-contained file.

Like the report of a run, the page loads no other file and escapes all names, settings and errors. Its only script copies
commands; the page's policy names that script's hash, so that no other one runs. It links to the reports of its runs by
relative paths. Its content is passed in as text and numbers.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from pocketvit.report import text
from pocketvit.report.curves import SPLITS
from pocketvit.report.study_curves import study_curves
from pocketvit.report.templating import page_environment
from pocketvit.runs.result import Evaluation

FAR = 4.0  # effects are cut off at this multiple of the median effect, so that the others remain readable


@dataclass(frozen=True, kw_only=True)
class PageCell:
    """One run."""

    seed: int
    state: str  # done, failed or missing
    accuracy: float | None  # a fraction; None unless done
    curve: Sequence[Evaluation]  # empty unless done
    timed: bool  # whether its times count, that is, it ran on the study's usual hardware
    error: str | None  # why it failed
    report: str | None  # link to its report, relative to the page; None if there is none
    log: str | None  # link to its log, relative to the page; None unless it failed


@dataclass(frozen=True, kw_only=True)
class PageEffect:
    """The difference between a row and its reference, a fraction."""

    reference: str
    difference: float
    interval: tuple[float, float] | None
    text: str  # the difference and its interval, in points


@dataclass(frozen=True, kw_only=True)
class PageRow:
    """One configuration."""

    name: str
    settings: Sequence[tuple[str, str]]  # the row's overrides: fields and their values
    command: str  # how to run it again
    figures: Mapping[str, str]  # the row in the tables: text by column
    sentence: str  # what was found of it
    kind: str | None  # the kind of verdict: helps, hurts, equal, untold, failed or open; None without a verdict
    effect: PageEffect | None
    cells: Sequence[PageCell]


@dataclass(frozen=True, kw_only=True)
class StudyPage:
    """Everything on the page."""

    name: str
    recipe: str  # what every row starts from
    base: Sequence[tuple[str, str]]  # overrides of every row: fields and their values
    summary: Sequence[tuple[str, str, Sequence[str]]]  # kind of verdict, its label, and the rows that have it
    facts: Sequence[tuple[str, str, str]]  # name, value and remark of each fact at the top
    rows: Sequence[PageRow]
    split: str  # the split of the accuracies, as in curves: test or val
    word: str  # what they are: accuracy or mAP
    outcome_columns: Sequence[str]
    cost_columns: Sequence[str]  # of the two tables; the first of each is the row's name
    notes: Sequence[str]  # how to read the table, one paragraph each
    origin: Sequence[tuple[str, str]]  # devices, versions and the like


def render_study(page: StudyPage) -> str:
    """The page as HTML."""
    curves = {row.name: [cell.curve for cell in row.cells if cell.state == "done"] for row in page.rows}
    timed = {row.name: [cell.curve for cell in row.cells if cell.timed] for row in page.rows}
    references = [row.effect.reference for row in page.rows if row.effect]
    title = "Accuracy" if page.word == "accuracy" else page.word
    groups = study_curves(curves, page.split, references, timed, title)
    environment = page_environment()
    script = environment.get_template("copy.js").render()
    return environment.get_template("study.html.j2").render(
        page=page,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        forest=_forest([(row, row.effect) for row in page.rows if row.effect]),
        title=title,
        images=SPLITS[page.split][0],
        curve_groups=groups,
        failures=[(row.name, cell) for row in page.rows for cell in row.cells if cell.state == "failed"],
    )  # fmt: skip


def _forest(rows: Sequence[tuple[PageRow, PageEffect]]) -> dict | None:
    """The positions of the differences and their intervals on a common axis, in percent of its length."""
    if not rows:
        return None
    reach = [max(map(abs, effect.interval or (effect.difference,))) for _, effect in rows]
    # The axis includes zero and every interval, except those far beyond the others.
    bound = min(max(reach), FAR * median(reach)) or max(reach) or 0.001
    spans = [_clipped(effect, bound) for _, effect in rows]
    margin = 0.04 * (max(high for _, _, high in spans) - min(low for low, _, _ in spans))
    start = min(0.0, min(low for low, _, _ in spans)) - margin
    end = max(0.0, max(high for _, _, high in spans)) + margin

    def position(value: float) -> float:
        return 100 * (value - start) / ((end - start) or 1.0)

    return {
        "zero": position(0.0),
        "start_text": text.points(start, signed=True),
        "end_text": text.points(end, signed=True),
        "rows": [
            {"row": row, "from": position(low), "at": position(middle), "to": position(high),
             "beyond": abs(effect.difference) > bound}
            for (row, effect), (low, middle, high) in zip(rows, spans, strict=True)
        ],
    }  # fmt: skip


def _clipped(effect: PageEffect, bound: float) -> tuple[float, float, float]:
    """Lower end, difference and upper end of an effect, clipped to ± `bound`."""
    low, high = effect.interval or (effect.difference, effect.difference)
    low, middle, high = (min(bound, max(-bound, value)) for value in (low, effect.difference, high))
    return low, middle, high
