"""Tables in LaTeX that need no package."""

from collections.abc import Mapping, Sequence

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


def latex_table(rows: Sequence[Mapping[str, str]], columns: Sequence[str]) -> str:
    """Write a tabular environment.

    Args:
        rows: a mapping from column to plain text for each row; it is escaped.
        columns: the columns to show, in order.
    """
    lines = [[latex_text(column) for column in columns]]
    lines += [[latex_text(" ".join(row[column].split())) for column in columns] for row in rows]
    head, *body = (" & ".join(cells) + r" \\" for cells in lines)
    begin, end, rule = rf"\begin{{tabular}}{{{len(columns) * 'l'}}}", r"\end{tabular}", r"\hline"
    return "\n".join([begin, rule, head, rule, *body, rule, end])
