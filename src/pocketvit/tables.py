"""Tables in Markdown, and a mean with its spread."""

import re
from collections.abc import Mapping, Sequence
from statistics import mean, stdev

ABSENT = "—"
ABSENT_YET = "not measured yet"


def markdown_text(text: str) -> str:
    """Escape text for Markdown, on one line; `markdown_table` itself escapes the vertical bar."""
    return re.sub(r"([\\`*_~\[\]<>&#$])", r"\\\1", " ".join(text.split()))


def markdown_table(rows: Sequence[Mapping[str, str]], columns: Sequence[str]) -> str:
    """Write a table in GitHub's Markdown.

    Args:
        rows: a mapping from column to text for each row; the text may be Markdown.
        columns: the columns to show, in order. If all cells begin with a digit or are absent, it is right-aligned.
    Returns:
        the table, without a newline at its end.
    """
    table = [[str(row[column]).replace("|", "\\|").replace("\n", " ") for column in columns] for row in rows]
    rules = []
    for cells in zip(*table, strict=True):
        is_numeric = all(cell == ABSENT or cell[:1].isdigit() for cell in cells)
        rules.append("---:" if is_numeric else "---")
    lines = [columns, rules or ["---"] * len(columns), *table]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def mean_and_spread(values: Sequence[float]) -> str:
    """The mean and, with two or more values, the standard deviation (n − 1): 93.41 ± 0.12."""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{mean(values):.2f} ± {stdev(values):.2f}"
