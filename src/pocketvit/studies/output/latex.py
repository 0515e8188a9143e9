"""The table of a study in LaTeX, narrow enough for a page, with notes beneath.

It needs the package booktabs; use `\\input{table.tex}`, inside a `table` or outside. The other tables have all figures in full.
"""

import re
from collections.abc import Mapping, Sequence

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


# ---------------------------------------------------------------- LaTeX

_PRINTED = str.maketrans({
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"$<$", ">": r"$>$", "|": r"$|$", '"': "''",
    "±": r"$\pm$", "−": r"$-$", "×": r"$\times$", "…": r"\dots{}", "—": "---", "\N{NO-BREAK SPACE}": "~",
    "[": "{[}", "*": "{*}",  # at the start of a row, both would be arguments of the preceding line break
})  # fmt: skip
"""What to write for characters that LaTeX would not print as they are, or not without a package."""


def latex_text(text: str) -> str:
    """Escape text so that LaTeX prints it as it is."""
    return text.translate(_PRINTED)


_FIGURE = re.compile(r"(?:< )?[+−]?[\d,/]+(?P<decimals>\.\d+)?(?: ± (?P<spread>[\d.]+))?")
"""A figure in a table: 94.10 ± 0.04, +0.42, < 0.001, 7/9."""


def latex_table(rows: Sequence[Mapping[str, str]], columns: Sequence[str]) -> str:
    """Write a tabular environment for the package booktabs; figures stand with their decimal points below each other.

    Args:
        rows: a mapping from column to plain text for each row; it is escaped.
        columns: the columns to show, in order.
    """
    texts = [[" ".join(row[column].split()) for row in rows] for column in columns]
    figures = [all(cell == ABSENT or _FIGURE.fullmatch(cell) for cell in cells) for cells in texts]
    cells = [_padded(column) if is_figure else [*map(latex_text, column)] for column, is_figure in zip(texts, figures)]
    head, *body = (" & ".join(line) + r" \\" for line in [[*map(latex_text, columns)], *zip(*cells)])
    kinds = "".join("r" if is_figure else "l" for is_figure in figures)
    begin, end = rf"\begin{{tabular}}{{{kinds}}}", r"\end{tabular}"
    return "\n".join([begin, r"\toprule", head, r"\midrule", *body, r"\bottomrule", end])


def _padded(figures: Sequence[str]) -> list[str]:
    """Figures for a column that is aligned on the right, with room for what the shorter ones lack."""
    found = [_FIGURE.fullmatch(figure) for figure in figures]
    decimals, spreads = ([part and part[name] or "" for part in found] for name in ("decimals", "spread"))
    widest, longest = max(spreads, key=len), max(decimals, key=len)
    padded = []
    for figure, own, spread in zip(figures, decimals, spreads, strict=True):
        text = latex_text(figure.partition(" ± ")[0])
        if figure != ABSENT:
            text += _room("0" * (len(longest) - len(own)))
            if spread:
                text += latex_text(" ± ") + _room("0" * (len(widest) - len(spread))) + spread
            elif widest:
                text += _room(latex_text(f" ± {widest}"))
        padded.append(text)
    return padded


def _room(text: str) -> str:
    """Empty room as wide as some LaTeX."""
    return rf"\phantom{{{text}}}" if text else ""
