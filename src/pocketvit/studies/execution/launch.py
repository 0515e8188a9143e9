"""Starting a cell in a process of its own, telling how it ended, and the command that does the same by hand."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from pocketvit.config import RunConfig, code_of, flatten, override, save_config
from pocketvit.errors import InputError
from pocketvit.recipes import RECIPES, recipe
from pocketvit.runs.result import result_at
from pocketvit.studies.definition.jobs import Job

GRACE_S = 20.0
"""How long a stopped process may take to save."""


def launch(
    job: Job, *, exclusive: bool = False, environment: Mapping[str, str] | None = None, pass_fds: Sequence[int] = ()
) -> subprocess.Popen:
    """Start a cell in a process that lives no longer than this one; see `worker.py`.

    Args:
        job: the cell.
        exclusive: whether it shares its device with others, and trains only while it holds the device's lock.
        environment: variables to set for it.
        pass_fds: open files that it inherits.
    Raises:
        InputError: the study's folder cannot be written.
    """
    try:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        save_config(override(job.cell.config, {"out": job.folder}), job.config_file)
        job.failure.unlink(missing_ok=True)
        output = open(job.log, "wb")
    except OSError as error:
        raise InputError(f"cannot write {job.log.parent}: {error.strerror}") from error
    words = [job.config_file, *(["--exclusive"] if exclusive else [])]
    words += ["--code", *(code.path for code in code_of(job.cell.config).values())]
    with output:
        return subprocess.Popen(
            [sys.executable, "-u", "-m", "pocketvit.studies.execution.worker", *words],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | dict(environment or {}),
            pass_fds=pass_fds,
            start_new_session=True,  # Ctrl-C in a terminal goes to a whole process group: keep out of it
        )


def failure_of(job: Job, code: int) -> str | None:
    """Why a cell that ended left no result, in one line; None if it left one.

    Args:
        job: the cell.
        code: its process's exit code, or minus the signal that ended it.
    """
    path = job.folder / "result.json"
    result = result_at(path)
    if result is None and path.exists():
        return f"{path} is damaged or another version's; remove it, and the run goes on"
    if result is not None:
        key, num_gpus = result.key, result.num_gpus
        if key != job.key and code == 0:
            return f"computed {key}, not {job.key}: are the data not the same everywhere?"
        if key != job.key or num_gpus > 1:
            whose = f"of {key}, another run" if key != job.key else f"of a run on {num_gpus} GPUs"
            return f"{path} is {whose}; move its folder away, and this cell is run"
        return None
    if code < 0:
        hint = " (out of memory?)" if code == -signal.SIGKILL else ""
        return f"ended by {signal.Signals(-code).name}{hint}"
    lines = job.log.read_text(encoding="utf-8", errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return said[-1] if said else f"ended with exit code {code}"


def command_line(config: RunConfig) -> list[str]:
    """The command that trains a configuration, without where to write."""
    name = config.recipe if config.recipe in RECIPES else "digits"
    base = flatten(recipe(name))
    words = ["pocketvit", "train", name]
    for field, value in flatten(config).items():
        if value != base[field] and field not in ("recipe", "out"):
            words.append("--" + field.replace("_", "-"))
            words += map(str, value if isinstance(value, tuple) else [value])
    return words
