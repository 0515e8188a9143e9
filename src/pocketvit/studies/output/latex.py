"""The table of a study in LaTeX, narrow enough for a page, with notes beneath.

It needs the package booktabs; use `\\input{table.tex}`, inside a `table` or outside. The other tables have all figures in full.
"""

from collections.abc import Sequence

from pocketvit.report.latex import latex_table, latex_text
from pocketvit.report.text import duration, points
from pocketvit.studies.analysis.findings import Finding, caveats
from pocketvit.studies.analysis.power import POWER
from pocketvit.studies.analysis.stats import Comparison
from pocketvit.studies.analysis.verdict import effect, interval, p_figure
from pocketvit.studies.definition.grid import IMAGES_OF, SPELLED, WORD_OF, Study
from pocketvit.tables import ABSENT

COLUMNS = ("row", "n", "accuracy (%)", "against", "difference", "bootstrap", "p", "verdict", "time")
VERDICTS = {"helps": "helps", "hurts": "hurts", "untold": "cannot be told", "failed": "failed", "open": ABSENT}


def study_latex(study: Study, found: Sequence[Finding]) -> str:
    """The table in LaTeX."""
    rows = [_row(finding) for finding in found]
    references = {finding.comparison.reference for finding in found if finding.comparison}
    # Empty columns are left out, and a common reference is in the notes.
    word = WORD_OF[study.measure]
    columns = [column for column in COLUMNS if any(row[column] != ABSENT for row in rows) or column in ("row", "n")]
    if len(references) == 1:
        columns.remove("against")
    notes = latex_text(" ".join(_notes(study, found, references)))
    rows = [{column.replace("accuracy", word): text for column, text in row.items()} for row in rows]
    table = latex_table(rows, [column.replace("accuracy", word) for column in columns])
    return "\n".join(
        ["{\\footnotesize\\setlength{\\tabcolsep}{4pt}", table, "", "\\smallskip", "\\noindent", notes, "\\par}", ""]
    )


def _row(finding: Finding) -> dict[str, str]:
    """A row as plain text, by column."""
    mean, std, comparison = finding.accuracy.mean, finding.accuracy.std, finding.comparison
    done, cells = finding.count("done"), len(finding.cells)
    known = {"row": finding.row, "n": str(done) if done == cells else f"{done}/{cells}"}
    if mean is not None:
        known["accuracy (%)"] = f"{100 * mean:.2f}" + ("" if std is None else f" ± {100 * std:.2f}")
    if finding.train_s is not None:
        known["time"] = duration(finding.train_s)
    return (
        dict.fromkeys(COLUMNS, ABSENT)
        | known
        | (_compared(comparison, finding.kind) if comparison and finding.kind else {})
    )


def _compared(comparison: Comparison, kind: str) -> dict[str, str]:
    """The columns that a comparison adds to its row."""
    known = {"against": comparison.reference}
    if comparison.difference is not None:
        known["difference"] = effect(comparison).removesuffix(" points")
    if comparison.bootstrap is not None:
        known["bootstrap"] = interval(comparison.bootstrap)
    if comparison.p_holm is not None:
        known["p"] = p_figure(comparison.p_holm)
    equal = f"n.s. ({points(comparison.detectable or 0.0)})"
    return known | {"verdict": equal if kind == "equal" else VERDICTS[kind]}


def _notes(study: Study, found: Sequence[Finding], references: set[str]) -> list[str]:
    """How to read the table, in sentences."""
    images = IMAGES_OF[study.measure]
    score = SPELLED[WORD_OF[study.measure]]
    texts = [f"{score} on the {images} images after the last step: mean ± standard deviation over n seeds."]
    if any(finding.count("done") < len(finding.cells) for finding in found):
        texts.append("n: finished runs of those planned.")
    if references:
        against = f" to {next(iter(references))}" if len(references) == 1 else ""
        texts.append(
            f"Difference{against}: in points, on the same seeds, ± half the 95 % interval (Student's t, seed variance "
            "pooled over the rows). p: from t, corrected for all comparisons (Holm)."
        )
    if any(finding.comparison and finding.comparison.bootstrap for finding in found):
        texts.append("Bootstrap: 95 % interval by resampling seeds.")
    if any(finding.kind == "equal" for finding in found):
        texts.append(
            f"n.s. (x): not significant; a difference of x would have been detected with {100 * POWER:.0f} % power, after "
            "the correction."
        )
    return [*texts, *caveats(study, found), "Time: training only."]
