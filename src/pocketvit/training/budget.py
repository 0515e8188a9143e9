"""The number of passes that fit into a time: `schedule.time_budget`.

Before the run, some steps and an evaluation of a trial are timed, warmed up, and the first process decides. The trial is thrown
away, so the run is the one that `--schedule.passes N` makes. The time counts from the first step to the last evaluation. It
leaves out what comes before, such as compiling, and the test and the report at the end.
"""

import time
from bisect import bisect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import ceil
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from pocketvit.config import RunConfig, ScheduleConfig, load_config, override
from pocketvit.config.checks import LARGEST
from pocketvit.data import Splits
from pocketvit.device import synchronize, watch_memory
from pocketvit.errors import InputError
from pocketvit.inference.logits import predict_logits
from pocketvit.randomness import leaving_generators_alone
from pocketvit.report.text import counted
from pocketvit.runs.folder import RunFolder
from pocketvit.training.distributed import ALONE, Processes
from pocketvit.training.loop import run_chunk
from pocketvit.training.progress import Reporter, SilentReporter
from pocketvit.training.stop import StopRequest
from pocketvit.training.trainer import Trainer

MEASURE_S = 2.0  # how long steps are timed
SHARE = 0.95  # of the budget that is planned; the rest is for checkpoints, log lines and a busier machine
WARM_UP_IMAGES = 256  # of an evaluation that is not timed


def with_fitting_passes(
    config: RunConfig,
    splits: Splits,
    device: torch.device,
    reporter: Reporter,
    processes: Processes = ALONE,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[RunConfig, dict[str, Any]]:
    """A configuration with as many passes as its time budget allows; as it is without one.

    Args:
        clock: in seconds.
    Returns:
        the configuration that `--schedule.passes N` gives, and what env.json says of it. A run that the folder holds already
        keeps its passes.
    Raises:
        InputError: not even one pass fits, or other fields do not allow so few.
    """
    budget = config.schedule.time_budget
    if budget is None:
        return config, {}
    begun = processes.from_first(lambda: _begun_with(config.out))
    if begun is not None:
        reporter.note(f"schedule.time_budget={budget}: the run in {config.out} keeps its {begun} passes")
        return override(config, {"schedule.passes": begun}), {}
    with leaving_generators_alone():
        pass_s, evaluation_s = _measured(config, splits, device, processes, clock)
    watch_memory(device)  # frees the trial's
    passes = processes.from_first(lambda: _decided(config, pass_s, evaluation_s))
    took = f"{counted(passes, 'pass')} of about {pass_s:.3g} s, {evaluation_s:.3g} s an evaluation"
    reporter.note(f"schedule.time_budget={budget}: {took}")
    measured = {"budget": budget, "passes": passes, "pass_s": pass_s, "evaluation_s": evaluation_s}
    return override(config, {"schedule.passes": passes}), {"time_budget": measured}


def _begun_with(out: Path | None) -> int | None:
    """The passes of the run that a folder holds, if there is one."""
    if out is None or not (file := RunFolder(out).config).exists():
        return None
    return load_config(file, allow_code=True).schedule.passes  # only to read it; the code of the new start will run


def _decided(config: RunConfig, pass_s: float, evaluation_s: float) -> int:
    """The most passes that fit, with their evaluations."""
    schedule, every = config.schedule, config.train.eval_every_passes
    seconds = SHARE * (schedule.budget_s or 0.0)
    passes = bisect(range(1, LARGEST + 1), seconds, key=lambda n: n * pass_s + ceil(n / every) * evaluation_s)
    if not passes:
        took = f"one pass takes {pass_s:.3g} s here and its evaluation {evaluation_s:.3g} s"
        least = ceil((pass_s + evaluation_s) / SHARE)
        raise InputError(f"schedule.time_budget={schedule.time_budget} is too short: {took}; give at least {least}s")
    try:
        override(config, {"schedule.passes": passes})
    except InputError as error:
        raise InputError(
            f"schedule.time_budget={schedule.time_budget} gives schedule.passes={passes}: {error}"
        ) from error
    return passes


def _measured(
    config: RunConfig, splits: Splits, device: torch.device, processes: Processes, clock: Callable[[], float]
) -> tuple[float, float]:
    """Seconds of a pass, on this process, and of an evaluation."""
    sides = config.schedule.sides
    schedule = ScheduleConfig(passes=100 + len(sides), sides=sides, warmup_passes=0)  # more than are run
    trial = Trainer(replace(config, schedule=schedule), splits, device, SilentReporter(), processes)
    try:
        with trial.fitting_threads():
            steps_s = [_step_s(trial, side, clock) for side in (*sides, None)]  # each for an equal part of the passes
            evaluation_s = processes.from_first(lambda: _evaluation_s(trial, clock))
    finally:
        trial.drop_graph()
    return mean(steps_s) * trial.loader.steps_per_pass, evaluation_s


def _step_s(trial: Trainer, side: int | None, clock: Callable[[], float]) -> float:
    """Seconds of a step on images of a side, with loading; the first chunk warms up."""
    timed, processes, stop = [], trial.processes, StopRequest()
    trial.model.train()
    trial.step.use_side(side)
    trial.step.counters.zero_()
    with ThreadPoolExecutor(max_workers=2) as threads:
        chunks = trial.chunks.remaining(threads, 0, 0)
        chunk = next(chunks, None)
        while chunk is not None and processes.from_first(lambda: sum(s for _, s in timed[1:]) < MEASURE_S):
            began = clock()
            done = run_chunk(trial, chunk, stop)
            chunk = next(chunks, None)  # loads while the device still trains, as in the run
            synchronize(trial.device)
            timed.append((done, clock() - began))
    steps, seconds = zip(*timed[1:], strict=True)
    return sum(seconds) / sum(steps)


def _evaluation_s(trial: Trainer, clock: Callable[[], float]) -> float:
    """Seconds of an evaluation, after some images that warm up."""
    images = (trial.splits.val or trial.splits.test).images
    for some in (images[:WARM_UP_IMAGES], images):
        began = clock()
        predict_logits(trial.averaged(), some, trial.mean, trial.std)
        seconds = clock() - began
    return seconds
