"""Profile one training step (the paper's Fig. 4): its phases, and its ten longest kernels.

A captured step is one launch for the host and cannot be divided. So the step is profiled before the capture: compiled,
or with the fused kernels, as configured. The captured step runs the same kernels, but without the same gaps between
them. So the times on a GPU are sums over kernels, and the time from step to step, with gaps, is given beside them.

Source: Wu 2025, "Powerful Design of Small Vision Transformer on CIFAR10", Figure 4
"""

import dataclasses
import os
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler writes to the terminal otherwise; read at import

import torch
from torch.profiler import ProfilerActivity, record_function

from pocketvit.bench.clock import time_repeats
from pocketvit.bench.picture import draw
from pocketvit.bench.synthetic import run_steps, synthetic_trainer
from pocketvit.bench.trace import Item, kernels, phase_ms, read_events, work_items
from pocketvit.config import RunConfig, override
from pocketvit.device import choose_device, device_name, synchronize
from pocketvit.errors import InputError
from pocketvit.files import write_json
from pocketvit.runs.provenance import environment
from pocketvit.training.trainer import Trainer

NUM_KERNELS = 10
STEPS = {"cuda": 10, "mps": 3, "cpu": 2}  # number of profiled steps; times are per step
PASS_IMAGES = {"cuda": 50_000, "mps": 1_024, "cpu": 0}
"""Images that are augmented together, so that a step's share is as in a run; at least `STEPS` batches."""
TRACE, SUMMARY, PICTURE = "trace.json.gz", "profile.json", "profile.png"


def profile(config: RunConfig, out: Path) -> dict[str, Any]:
    """Profile a step on synthetic images and write profile.json, profile.png and trace.json.gz.

    Returns:
        the content of profile.json, per step: `phases_ms` and their sum `busy_ms`; `kernels`, the longest, with their
        fraction `frac` of that sum; `step_ms`, from one step to the next without the profiler.
    Raises:
        InputError: the folder cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {out}: {error.strerror}") from error
    device = choose_device(config.train.device)
    steps = STEPS[device.type]
    num_images = max(steps * config.batch_size, PASS_IMAGES[device.type])
    plain = override(config, {"train.cuda_graph": False})
    trainer = synthetic_trainer(plain, device, num_images)
    with trainer.fitting_threads():
        step_s = _run_profiled(trainer, steps, out / TRACE)
    items = _of_one_step(work_items(read_events(out / TRACE)), steps, trainer.loader.chunk_steps)
    summary = _summary(config, trainer, items) | {"step_ms": step_s * 1e3}
    write_json(out / SUMMARY, summary)
    draw(summary, out / PICTURE)
    return summary


def _run_profiled(trainer: Trainer, steps: int, trace: Path) -> float:
    """Profile loading a chunk and some of its steps; returns the seconds of a step without the profiler."""
    plan = trainer.chunks.plan(0)

    def load() -> None:
        with record_function("data"):
            trainer.step.set_chunk(trainer.loader.load(plan, 0, trainer.loader.chunk_steps))

    run = partial(run_steps, trainer, steps)
    load()
    step_s = time_repeats(run, trainer.device, 3).median_s / steps  # compiles first
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if trainer.device.type == "cuda" else [])
    with torch.profiler.profile(activities=activities):
        run()  # keeps the profiler's own set-up out of the trace
        synchronize(trainer.device)
    with torch.profiler.profile(activities=activities) as profiler:
        load()
        run()
        synchronize(trainer.device)
    profiler.export_chrome_trace(str(trace))
    return step_s


def _of_one_step(items: list[Item], steps: int, chunk_steps: int) -> list[Item]:
    """The work of one step: a chunk's data is shared by all of its steps, the rest was done `steps` times."""
    found = []
    for item in items:
        served = chunk_steps if item.phase == "data" else steps
        found.append(dataclasses.replace(item, ms=item.ms / served, runs=item.runs / served))
    return found


def _summary(config: RunConfig, trainer: Trainer, items: list[Item]) -> dict[str, Any]:
    device = trainer.device
    env, phases = environment(device_name(device)), phase_ms(items)
    busy_ms = sum(phases.values())
    heaviest = [dataclasses.asdict(k) | {"frac": k.ms / busy_ms} for k in kernels(items)[:NUM_KERNELS]]
    on_gpu = device.type == "cuda"
    how = (
        "Sums over the kernels of a step that is not captured in a CUDA graph, without the gaps between them"
        if on_gpu
        else "Sums over operators, which the profiler slows down, so they may exceed a step without it"
    )
    return {
        "recipe": config.recipe,
        "batch_size": config.batch_size,
        "num_params": trainer.model.num_params,
        "num_gpus": 1 if on_gpu else 0,
        "train": dataclasses.asdict(trainer.config.train),
        "load_average": os.getloadavg()[0],
        "how": f"{how}; data is a step's share of augmenting {trainer.loader.chunk_steps} batches at once.",
        "busy_ms": busy_ms,
        "phases_ms": phases,
        "kernels": heaviest,
    } | {key: env[key] for key in ("device", "versions", "cuda", "commit", "dirty", "command", "started")}
