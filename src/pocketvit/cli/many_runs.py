"""`pocketvit runs` and `compare`: commands on several runs."""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from pocketvit.cli.parsing import parse_command
from pocketvit.cli.runs import print_json
from pocketvit.errors import InputError
from pocketvit.terminal import printable, say

if TYPE_CHECKING:
    from pocketvit.runs.listing import ListedRun

WIDE = 200  # columns of a table that is not for a terminal, so that nothing is cut off


@dataclass(frozen=True)
class RunsArguments:
    """List the runs in a folder, finished or not."""

    folder: tyro.conf.Positional[Path] = Path("runs")
    """Looked through at any depth."""
    sort: Literal["started", "name", "accuracy", "time"] = "started"
    """By when they were started, by folder, by test accuracy or mAP (best first), or by training time."""
    json: bool = False
    """Print JSON instead of a table."""


SORTS: dict[str, Any] = {
    "started": lambda run: 0,  # as they come
    "name": lambda run: run.folder,
    "accuracy": lambda run: -(run.test_map or run.test_accuracy or 0),
    "time": lambda run: run.train_s or 0,
}


def runs_command(arguments: list[str]) -> int:
    """`pocketvit runs [FOLDER] [--sort KEY] [--json]`."""
    parsed = parse_command(RunsArguments, arguments, "pocketvit runs")
    from pocketvit.runs.listing import list_runs

    runs = sorted(list_runs(parsed.folder), key=SORTS[parsed.sort])
    if parsed.json:
        print_json([dataclasses.asdict(run) for run in runs])
    else:
        _print_table(runs)
    return 0


def _print_table(runs: Sequence["ListedRun"]) -> None:
    """The runs as a table; a column that no run has something in is left out."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    rows = [_cells(run) for run in runs]
    shown = [name for name in rows[0] if any(row[name] for row in rows)]
    for name in shown:
        left = name in ("run", "state", "recipe", "started")
        table.add_column(name, justify="left" if left else "right", no_wrap=name != "run", overflow="fold")
    for run, row in zip(runs, rows, strict=True):
        style = {"finished": "", "unfinished": "yellow", "damaged": "red"}[run.state]
        table.add_row(*(Text(printable(row[name]), style) for name in shown))
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else WIDE, highlight=False)
    with console.capture() as captured:  # rich itself exits with 1 when the reader of a pipe is gone
        console.print(table)
    print(captured.get(), end="")


def _cells(run: "ListedRun") -> dict[str, str]:
    """A run's texts by column."""
    from pocketvit.report.text import count, duration, percent

    return {
        "run": run.folder,
        "state": "" if run.state == "finished" else run.state,
        "recipe": run.recipe or "",
        "seed": "" if run.seed is None else str(run.seed),
        "test accuracy": "" if run.test_accuracy is None else percent(run.test_accuracy, 2),
        "test mAP": "" if run.test_map is None else percent(run.test_map, 2),
        "validation": "" if run.val_accuracy is None else percent(run.val_accuracy, 2),
        "passes": f"{run.passes:,}"
        if run.all_passes in (None, run.passes)
        else f"{run.passes:,} of {run.all_passes:,}",
        "training time": "" if run.train_s is None else duration(run.train_s),
        "parameters": "" if run.num_params is None else count(run.num_params),
        "started": (run.started or "")[:16].replace("T", " "),
    }


@dataclass(frozen=True)
class CompareArguments:
    """Compare finished runs on a page: configurations, curves, accuracies, classes, McNemar's test."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(help_behavior_hint="(at least two)")]
    """Run folders; the others are compared with the first."""
    out: Path = Path("compare.html")
    """The page."""


def compare_command(arguments: list[str]) -> int:
    """`pocketvit compare RUN RUN... [--out PAGE]`."""
    parsed = parse_command(CompareArguments, arguments, "pocketvit compare")
    if len(parsed.runs) < 2:
        raise InputError("give at least two run folders")
    from pocketvit.report.comparison import compare, summary, write_comparison

    found = compare(parsed.runs)
    say("\n".join(summary(found)))
    say(f"page: {write_comparison(parsed.out, found)}")
    return 0
