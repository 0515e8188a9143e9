"""A run from configuration to result.

    connect to the other processes, if any  ->  open the data  ->  build model, optimizers, step  ->  open the run folder
    ->  pass by pass: plan, load, step, log, evaluate, save  ->  test, report, result.json

Of several processes, the first one writes.
"""

import os
import platform
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from rich.console import Console

from pocketvit.config import RunConfig, code_of, override, weights_of
from pocketvit.config.data import MEMORY
from pocketvit.data import open_splits, refuse_among_classes
from pocketvit.data.memory import Data
from pocketvit.device import choose_device, device_name, repeating, watch_memory
from pocketvit.errors import InputError
from pocketvit.randomness import leaving_generators_alone
from pocketvit.runs.folder import RUNS, RunFolder
from pocketvit.runs.result import RunResult
from pocketvit.terminal import outliving_output
from pocketvit.training.budget import with_fitting_passes
from pocketvit.training.distributed import Processes, join
from pocketvit.training.extend import extension_note
from pocketvit.training.finish import finish
from pocketvit.training.loop import run_passes
from pocketvit.training.progress import Reporter, SilentReporter, console_reporter
from pocketvit.training.setup import check_labels
from pocketvit.training.stop import StopRequest
from pocketvit.training.trainer import Trainer


def train(
    config: RunConfig, reporter: Reporter | None = None, *, data: Data | None = None, started: float | None = None
) -> RunResult:
    """Train a model as `config` says and write its run folder.

    Started by torchrun, this is one process of the run: the first one writes and reports.

    Args:
        config: what to run.
        reporter: shows progress; by default a bar in a terminal, and lines elsewhere.
            `pocketvit.SilentReporter()` prints nothing.
        data: images in memory to train on, instead of `config.data.source`: (images, labels) or four arrays, a
            mapping of arrays named as in an .npz file, PyTorch data sets of (image, label), or what `load_dataset` gives.
        started: `time.perf_counter()` from which `total_s` counts; by default now, after torch was imported.
    Returns:
        the content of result.json, and its place: `result.test_accuracy`, `result.run_folder`.
    Raises:
        InputError: the configuration or the data cannot be used, or the loss became infinite or NaN.
        SystemExit: the same on processes other than the first, which prints the reason.
        Stopped: a signal arrived; the run is saved.
        TimeoutError: the other processes did not come.
    """
    started = time.perf_counter() if started is None else started
    if not isinstance(config, RunConfig):
        raise InputError(f"{config!r} is not a configuration; make one with pocketvit.recipe('digits'), for example")
    if data is not None:
        config = override(config, {"data.source": MEMORY})
    device = config.train.device
    with (
        outliving_output(),
        leaving_generators_alone(),
        repeating(config.train.deterministic, device),
        join(device) as processes,
    ):
        if processes.launched and config.out is None:
            raise processes.error("torchrun needs --out DIR, so that a restarted command finds its run")
        if (out := config.out) is not None:  # checked before anything takes time
            result = processes.from_first(lambda: left_by_the_last_start(RunFolder(out), config))
            if result is not None:
                return result
        reporter = (reporter or console_reporter(Console())) if processes.first else SilentReporter()
        held = watch_memory(choose_device(device))
        trainer = prepare(config, processes, reporter, data)
        trainer.started = started
        try:
            with trainer.fitting_threads(), opened_folder(trainer) as env:
                reporter.opened(trainer.config, trainer.folder.path)
                run_passes(trainer)
                with StopRequest():  # a signal is too late now: the few remaining files are written first
                    result = processes.from_first(lambda: finish(trainer, env, held))
                if trainer.folder.report.exists():
                    reporter.note(f"report: {trainer.folder.report}")
                reporter.finished(result)
                return result
        finally:
            trainer.drop_graph()
            reporter.closed()


def left_by_the_last_start(folder: RunFolder, config: RunConfig) -> RunResult | None:
    """The result of a run that torchrun restarts because a worker was lost after the result was written.

    Raises:
        InputError: the folder contains a finished run, and this is a first start.
    """
    restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
    if restarted and folder.result.exists() and not folder.is_extended_by(config):  # else of the run with fewer passes
        return RunResult.read(folder.result)
    folder.check_unfinished(config)
    return None


@contextmanager
def opened_folder(trainer: Trainer) -> Iterator[dict[str, Any]]:
    """Find or create the run's folder, lock it, and write env.json; returns its content.

    Raises:
        InputError: the folder cannot be used.
    """
    config, processes, fingerprint = trainer.config, trainer.processes, trainer.splits.fingerprint
    with ExitStack() as kept:

        def begin() -> RunFolder:
            refuse_among_classes(config.data, config.out or RUNS)
            folder = RunFolder.of(config)
            kept.enter_context(folder.locked(trainer.reporter.note))
            folder.begin(config, fingerprint)
            return folder

        trainer.folder = processes.from_first(begin)
        trainer.reporter.note(f"run folder: {trainer.folder.path}")
        trainer.reporter.note(f"recipe: {config.recipe}")
        trainer.reporter.note(trainer.splits.counts())
        if config.schedule.extended:
            trainer.reporter.note(extension_note(config, trainer.loader.steps_per_pass))
        for line in processes.from_first(lambda: trainer.folder.code_notes(config)):
            trainer.reporter.note(line)
        written = config, device_name(trainer.device), fingerprint, trainer.measured
        yield processes.from_first(lambda: trainer.folder.write_env(*written))


def prepare(config: RunConfig, processes: Processes, reporter: Reporter, data: Data | None = None) -> Trainer:
    """Open the data, unless they are given, and build everything but the run's folder.

    Raises:
        InputError: the configuration or the data cannot be used.
    """
    device = choose_device(config.train.device)
    if device.type == "mps" and processes.size > 1:
        raise processes.error("train.device=mps runs in one process only; with torchrun, use train.device=cpu")
    known = data is None and config.data.source in ("cifar10", "cifar100")
    if known and (slow := slow_note(config, device, 50_000, (32, 32), processes.size)):  # before it is downloaded
        reporter.note(slow)
    splits = processes.in_turn(lambda: open_splits(config.data, data))
    if splits.fingerprint != processes.from_first(lambda: splits.fingerprint):
        here = f"{config.data.source} on {platform.node()}"
        raise InputError(f"{here} differs from the data of the first process; give every host the same files")
    files = {name: own.identity for name, own in code_of(config).items()}
    files |= {name: weights.digest for name, weights in weights_of(config).items()}
    if files != processes.from_first(lambda: files):
        here = f"{' or '.join(files)} on {platform.node()}"
        raise InputError(f"{here} differs from that of the first process; give every host the same files")
    check_labels(config, splits)
    for note in splits.notes:
        reporter.note(note)
    if config.optim.decays_gradient and config.optim.weight_decay > MOST_DECAY:
        what = f"optim.weight_decay={config.optim.weight_decay} is added to the gradient with optim.name={config.optim.name}"
        reporter.note(f"CAUTION: {what}, where 1e-4 is usual; so much can prevent learning")
    size = len(splits.train), splits.train.image_size
    if not known and (slow := slow_note(config, device, *size, processes.size)):
        reporter.note(slow)
    try:
        fitted, measured = with_fitting_passes(config, splits, device, reporter, processes)
        trainer = Trainer(fitted, splits, device, reporter, processes)
        trainer.measured = measured
        return trainer
    except torch.cuda.OutOfMemoryError as error:
        raise InputError(
            "out of GPU memory before the first step; is another process using this GPU? If not, choose a smaller model or "
            "batch_size"
        ) from error


MOST_DECAY = 0.01
"""More weight decay than this is noted, if it is part of the gradient."""

CPU_FLOP_PER_S = 80e9
"""Of one thread in training: 86 GFLOP/s in paper's model and 55 in digits', on the Xeon of results/speed/cpu.json."""


def slow_note(
    config: RunConfig, device: torch.device, num_images: int, size: tuple[int, int], num_processes: int = 1
) -> str | None:
    """Warn of a run that takes more than an hour on CPUs, with its estimated time and what to run instead.

    Args:
        num_images: training images.
        size: of an image, (height, width), pixels.
    """
    model, threads = config.model, torch.get_num_threads() * num_processes
    stride = model.patch_stride or model.patch_size
    height, width = size if config.data.resize is None else (config.data.resize,) * 2
    tokens = (height // stride) * (width // stride) + model.num_cls_tokens + model.num_registers
    # Two FLOP per weight and token forward, four backward; attention's products are small beside the projections.
    flop = 6 * tokens * model.num_layers * (4 + 2 * model.mlp_ratio) * model.width**2
    images_per_s = CPU_FLOP_PER_S * threads / flop
    pass_s = num_images / images_per_s
    hours = pass_s * config.schedule.passes / 3600
    if device.type != "cpu" or hours < 1 or config.schedule.time_budget is not None:
        return None
    lasts = f"{hours / 24:,.1f} days" if hours > 24 else f"{hours:,.0f} hours"
    return (
        f"CAUTION: this run takes roughly {lasts} on this CPU ({threads} thread{'s' if threads > 1 else ''}, estimated at "
        f"{images_per_s:,.0f} images/s from the model's FLOP and one Xeon's speed). What takes less: a GPU; pocketvit train "
        f"digits, under a minute; or few passes, roughly {max(1, pass_s / 60):,.0f} min each, such as "
        "--schedule.passes 2 --schedule.warmup-passes 0"
    )
