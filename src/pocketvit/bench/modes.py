"""The three modes of a benchmark.

- forward: classify one batch in evaluation mode, again and again;
- step: training steps on images on the device: loss, mixing, backward, update;
- recipe: whole passes as in a run, including drawing and augmenting the images.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from torch import Tensor

from pocketvit.bench.clock import Timing, captured, time_repeats
from pocketvit.bench.synthetic import run_steps, shape_of, synthetic_trainer
from pocketvit.config import RunConfig, override
from pocketvit.device import synchronize, uses_bf16
from pocketvit.model import ViT
from pocketvit.training.trainer import Trainer

PASS_IMAGES = {"cuda": 50_000, "mps": 2_048, "cpu": 128}
"""Training images per pass; on a GPU, as many as CIFAR-10 has. At least two batches."""
EAGER_STEPS = 32  # most steps of an eager pass on a GPU, where a pass of small batches would take a minute
REPEAT_S = 0.2  # approximate duration of a repeat of single batches
MOST_CALLS = 1_000


def plain_model(config: RunConfig) -> ViT:
    """The model alone, on the CPU, in training mode.

    Raises:
        InputError: the data cannot be opened.
    """
    height, width, num_classes = shape_of(config.data)
    model = ViT(config.model, image_size=(height, width), num_classes=num_classes)
    model.use_kernels(config.train.kernels)
    return model


@torch.no_grad()
def time_forward(config: RunConfig, device: torch.device, repeats: int) -> dict[str, Timing]:
    """Time the classification of one batch on the device."""
    model = plain_model(config).eval().to(device)
    images = torch.randn(config.batch_size, 3, *model.image_size, device=device)
    bf16 = uses_bf16(config.train.precision, device)
    compiles = config.train.compile if config.train.compile is not None else device.type == "cuda"
    plain = model.block_kernels(device, torch.bfloat16 if bf16 else torch.float32).name == "reference"
    call = torch.compile(model, fullgraph=True, dynamic=False) if compiles and plain else model

    def forward() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16, cache_enabled=False):
            return call(images)  # (B, K)

    work = captured(forward) if config.train.cuda_graph and device.type == "cuda" else forward

    def run(calls: int) -> None:
        for _ in range(calls):
            work()

    return {"forward": _per_batch(run, MOST_CALLS, device, repeats)}


def time_training(config: RunConfig, device: torch.device, repeats: int) -> dict[str, Timing]:
    """Time whole passes as in a run, then only the steps of the last one; the times are per step."""
    steps = max(2, PASS_IMAGES[device.type] // config.batch_size)
    if config.train.compile is False and device.type == "cuda":
        steps = min(steps, EAGER_STEPS)
    # One pass warms up, and one more is loaded while the last one is trained on.
    schedule = {"schedule.passes": repeats + 2, "schedule.warmup_passes": 0}
    trainer = synthetic_trainer(override(config, schedule), device, steps * config.batch_size)

    passes = _time_passes(trainer, repeats)
    steps_alone = _per_batch(partial(run_steps, trainer), trainer.loader.chunk_steps, device, repeats)
    return {"recipe": passes, "step": steps_alone}


def _time_passes(trainer: Trainer, repeats: int) -> Timing:
    """Train like `training.loop`, without logs and checkpoints; the mean time of a step in each pass."""
    seconds = []
    with ThreadPoolExecutor(max_workers=2) as threads:
        chunks = trainer.chunks.remaining(threads, trainer.pass_index, trainer.step_in_pass)
        current = next(chunks)
        trainer.step.set_chunk(current)  # compiles and captures
        if trainer.step.graph is not None:  # capture again, so that peak memory is counted without compiling
            trainer.step.graph = None
            torch.cuda.reset_peak_memory_stats(trainer.device)
        for _ in range(repeats + 1):
            began, done = time.perf_counter(), 0
            while done < trainer.loader.steps_per_pass:
                trainer.step.set_chunk(current)
                for _ in range(current.num_steps):
                    trainer.step()
                done += current.num_steps
                current = next(chunks)  # loads while the device still trains
                synchronize(trainer.device)
            seconds.append((time.perf_counter() - began) / done)
    return Timing(tuple(seconds[1:]))


def _per_batch(run: Callable[[int], None], most: int, device: torch.device, repeats: int) -> Timing:
    """Time one batch, by `run`, which runs up to `most` in a row, in repeats of about `REPEAT_S`."""
    once_s = time_repeats(lambda: run(1), device, 1).median_s
    calls = max(1, min(most, round(REPEAT_S / once_s)))
    timing = time_repeats(lambda: run(calls), device, repeats)
    return Timing(tuple(seconds / calls for seconds in timing.seconds))
