"""`pocketvit study`: run a study, or print its plan."""

import os
import re
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from pocketvit.cli.parsing import Tracker, check_tracker, parse_command
from pocketvit.config import code_of
from pocketvit.errors import InputError
from pocketvit.terminal import outliving_output, say

if TYPE_CHECKING:
    from pocketvit.studies import Study
    from pocketvit.studies.execution.runner import StudyRun

FAILED, TIME_UP = 1, 3
"""Exit codes: a run failed; the time was up and runs are left."""


@dataclass(frozen=True)
class StudyArguments:
    """Make every run of a study that has no result yet, then write its tables and its page.

    The same command resumes an interrupted study. Exit codes: 0 all runs are done, 1 some failed, 3 the time was up,
    130 or 143 stopped by a signal and saved.
    """

    study: tyro.conf.Positional[str]
    """A .yaml file, or the name of a built-in study: digits, neighbours, paper-table2, paper-table3 or paper-fig6."""
    seeds: int | None = None
    """Number of seeds of every row, from 0; by default as in the study file."""
    gpus: str | None = None
    """GPUs to use, such as 0,1,2,3; by default all. One run at a time trains on each."""
    engine: Literal["local", "ray"] = "local"
    """Where to run: in processes on this machine, or as tasks of a Ray cluster."""
    address: str | None = None
    """Address of the Ray cluster; by default auto, the one that Ray finds."""
    time_limit: str | None = None
    """Stop after this time, such as 9m or 1h30m, and start no run that would not finish by then."""
    out: Path | None = None
    """The study's folder; by default runs/NAME."""
    results: Path | None = None
    """A folder with results of earlier runs, which are not repeated; by default results, if it exists."""
    data: str | None = None
    """Another data set, as in `pocketvit train --data`."""
    resize: int | None = None
    """Resize every image to a square of this many pixels a side."""
    only: str | None = None
    """Rows to run, separated by commas; names may contain * and ?."""
    track: Tracker | None = None
    """Experiment tracker to send every run to."""
    plan: bool = False
    """Train nothing; load the code that the study names, to check it, and print the number of runs, the time, and which
    differences the study can detect."""
    difference: float | None = None
    """With --plan: a difference in points of accuracy; print how many seeds it needs."""
    allow_code: bool = False
    """Agree to run the code that the study names."""


def study_command(arguments: list[str]) -> int:
    """`pocketvit study FILE|NAME [--seeds N] [--gpus 0,1] [--time-limit 9m] [--plan] ...`."""
    parsed = parse_command(StudyArguments, arguments, "pocketvit study")
    _check_together(parsed)
    check_tracker(parsed.track)
    results = parsed.results or Path("results")
    _check_results(results, given=parsed.results is not None)
    limit = inf if parsed.time_limit is None else seconds(parsed.time_limit)
    gpus = parsed.gpus.split(",") if parsed.gpus else None
    from pocketvit.studies.definition.choose import find_study, with_data, with_seeds

    study = find_study(parsed.study, allow_code=parsed.allow_code)
    study = study if parsed.seeds is None else with_seeds(study, parsed.seeds)
    study = with_data(study, parsed.data, parsed.resize)
    out = parsed.out or Path("runs") / study.name
    only = [] if parsed.only is None else [parsed.only]
    if parsed.plan:
        for code in {code for row in study.rows for code in code_of(row.config).values()}:
            code.load()
        from pocketvit.studies.definition.jobs import wanted_device
        from pocketvit.studies.execution.forecast import Devices, devices_here, forecast

        # A Ray cluster is not queried, but counted as one device.
        ray = parsed.engine == "ray"
        devices = Devices(1) if ray else devices_here(gpus, wanted_device(study.cells()))
        options = {"results": results, "devices": devices, "only": only, "difference": parsed.difference}
        say("\n".join(forecast(study, out, **options)))
        return 0
    from pocketvit.studies.execution.runner import run_study

    address = (parsed.address or "auto") if parsed.engine == "ray" else None
    with outliving_output():
        options = {"results": results, "time_limit_s": limit, "only": only, "track": parsed.track}
        run = run_study(study, out, gpus=gpus, address=address, **options)
        return _end(study, run, out)


def _check_results(folder: Path, *, given: bool) -> None:
    """Refuse a folder of results that was given but does not exist, or cannot be read: its runs would be repeated."""
    if given and not folder.is_dir():
        raise InputError(f"--results {folder}: no such folder; its runs would be repeated")
    if folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK):
        raise InputError(f"--results {folder}: cannot be read; its runs would be repeated")


def _check_together(parsed: StudyArguments) -> None:
    """Refuse flags that would have no effect."""
    if parsed.address is not None and parsed.engine != "ray":
        raise InputError(f"--address {parsed.address}: only for a Ray cluster; add --engine ray or leave it out")
    if parsed.gpus == "":
        raise InputError("--gpus '': names no GPU; write for example 0,1, or leave it out")
    if parsed.gpus is not None and parsed.engine == "ray":
        raise InputError(f"--gpus {parsed.gpus}: Ray chooses the GPUs itself; leave --gpus or --engine ray out")
    if parsed.track is not None and parsed.plan:
        raise InputError(f"--track {parsed.track}: a plan trains nothing; leave --track or --plan out")
    if parsed.difference is not None and not parsed.plan:
        raise InputError(f"--difference {parsed.difference:g}: only with --plan; add it or leave --difference out")


def _end(study: "Study", run: "StudyRun", out: Path) -> int:
    """Write the tables, print the verdicts and what is left; returns the exit code."""
    from rich.console import Console

    from pocketvit.report.text import counted
    from pocketvit.studies.analysis.findings import caveats, findings
    from pocketvit.studies.execution.live import verdict_table
    from pocketvit.studies.output.outputs import write_outputs

    found = findings(study, run.gathered)
    files = write_outputs(study, found, out)
    console = Console()
    console.print(verdict_table(study, found))
    for line in caveats(study, found):
        say(line)
    failed = [cell for cell in run.gathered if cell.state == "failed"]
    for cell in failed:
        say(f"{cell.row} seed {cell.seed} failed: {cell.error}" + (f"; its log: {cell.log}" if cell.log else ""))
    say(f"{', '.join(file.name for file in files)} in {out}")
    if run.left:
        print(f"{counted(run.left, 'run')} {'is' if run.left == 1 else 'are'} left; the same command resumes the study")
    if run.signum is not None:
        return 128 + run.signum
    return FAILED if failed else TIME_UP if run.left else 0


def seconds(text: str) -> float:
    """The seconds of a time span such as 90s, 9m or 1h30m.

    Raises:
        InputError: not of that form.
    """
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    if not text or found is None:
        raise InputError(f"--time-limit {text or repr(text)}: write hours, minutes or seconds, such as 9m or 1h30m")
    hours, minutes, rest = (int(part or 0) for part in found.groups())
    return 3600 * hours + 60 * minutes + rest
