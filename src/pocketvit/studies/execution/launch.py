"""Start a cell in its own process, find out why it failed, and build the equivalent command."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from pocketvit.config import RunConfig, code_of, flatten, override, save_config, weights_of
from pocketvit.errors import InputError
from pocketvit.recipes import ADAPTED, RECIPES, recipe
from pocketvit.runs.result import result_at
from pocketvit.studies.definition.jobs import Job

GRACE_S = 20.0  # seconds a stopped process may take to save


def launch(
    job: Job, *, exclusive: bool = False, environment: Mapping[str, str] | None = None, pass_fds: Sequence[int] = ()
) -> subprocess.Popen:
    """Start a cell in a process that ends with this one; see `worker.py`.

    Args:
        exclusive: train only while holding the device's lock.
        environment: variables to set.
        pass_fds: open files to inherit.
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
    words += ["--weights", *map(str, weights_of(job.cell.config).values())]
    words += ["--track", *job.track] if job.track else []
    words += ["--code", *(code.path for code in code_of(job.cell.config).values())]
    with output:
        return subprocess.Popen(
            [sys.executable, "-u", "-m", "pocketvit.studies.execution.worker", *words],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | dict(environment or {}),
            pass_fds=pass_fds,
            start_new_session=True,  # keeps Ctrl-C, which goes to a whole process group, away from it
        )


def failure_of(job: Job, code: int) -> str | None:
    """Why a cell that ended left no result, in one line; None if it left one.

    Args:
        code: its process's exit code, or minus the signal that ended it.
    """
    path = job.folder / "result.json"
    result = result_at(path)
    if result is None and path.exists():
        return f"{path} is damaged or from another version; remove it to resume the run"
    if result is not None:
        key, num_gpus = result.key, result.num_gpus
        if key != job.key and code == 0:
            return f"computed {key}, not {job.key}: does the data set differ between machines?"
        if key != job.key or num_gpus > 1:
            whose = f"another run, {key}" if key != job.key else f"a run on {num_gpus} GPUs"
            return f"{path} is from {whose}; move its folder away to run this cell"
        return None
    if code < 0:
        hint = " (out of memory?)" if code == -signal.SIGKILL else ""
        return f"ended by {signal.Signals(-code).name}{hint}"
    lines = job.log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), f"ended with exit code {code}")


def command_line(config: RunConfig) -> list[str]:
    """The command that trains a configuration, without `--out`."""
    # An adapted recipe would adapt to the data anew.
    name = config.recipe if config.recipe in RECIPES and config.recipe not in ADAPTED else "digits"
    base = flatten(recipe(name))
    words = ["pocketvit", "train", name]
    for field, value in flatten(config).items():
        if value != base[field] and field not in ("recipe", "out"):
            words.append("--" + field.replace("_", "-"))
            words += map(str, value if isinstance(value, tuple) else [value])
    return words
