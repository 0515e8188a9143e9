"""Tables in LaTeX."""

import re
from collections.abc import Mapping, Sequence

from pocketvit.tables import ABSENT

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"$<$", ">": r"$>$", "|": r"$|$", '"': "''",
    "±": r"$\pm$", "−": r"$-$", "×": r"$\times$", "…": r"\dots{}", "—": "---", "\N{NO-BREAK SPACE}": "~",
    "[": "{[}", "*": "{*}",  # at the start of a row, both would be arguments of the preceding line break
}  # fmt: skip
"""Characters that LaTeX would not print as they are, or not without a package."""
_TRANSLATION = str.maketrans(_SPECIAL)


def latex_text(text: str) -> str:
    """Escape text so that LaTeX prints it as it is."""
    return text.translate(_TRANSLATION)


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
