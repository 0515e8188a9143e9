"""What a run looked like, as one page, and what several runs say together, as Markdown.

Everything here reads files that a run left behind and works without torch, so a report can be made again on any
machine, long after the run.
"""

from pocketvit.report.page import write_report
from pocketvit.report.tables import PublishedRow, markdown_table, replace_section, results_table, update_readme

__all__ = [
    "PublishedRow",
    "markdown_table",
    "replace_section",
    "results_table",
    "update_readme",
    "write_report",
]
