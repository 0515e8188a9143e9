"""All checks of a configuration, in the order in which one makes the next pointless."""

from collections.abc import Iterator
from pathlib import Path
from shlex import quote

import torch

from pocketvit.config import RunConfig, override
from pocketvit.data import Splits, open_splits
from pocketvit.device import choose_device, watch_memory
from pocketvit.doctor import checks, trials
from pocketvit.doctor.checks import Finding
from pocketvit.doctor.lr_range import draw
from pocketvit.doctor.trial import Budget, Trial
from pocketvit.errors import InputError
from pocketvit.files import write_atomically
from pocketvit.randomness import leaving_generators_alone
from pocketvit.training.progress import SilentReporter
from pocketvit.training.trainer import Trainer


def examine(config: RunConfig, picture: Path, budget: Budget | None = None) -> Iterator[Finding]:
    """Check whether a run would work. No run folder is made.

    Args:
        picture: where the learning-rate range test is drawn, a PNG.
        budget: the time that the trials may take.
    Returns:
        what was found, one by one as it is; after a failure that prevents the others, no more.
    Raises:
        InputError: the device is not there, or the picture cannot be written.
    """
    device, budget = choose_device(config.train.device), budget or Budget()
    held = watch_memory(device)
    with leaving_generators_alone():
        yield checks.software(device)
        try:
            splits = open_splits(config.data)
            yield (finding := checks.data(config.data, splits))
        except InputError as error:
            yield Finding(
                "data", "FAIL", str(error), f"pocketvit data check {quote(config.data.source)} reads the data alone"
            )
            return
        if finding.state == "FAIL":
            return
        try:
            trainer = Trainer(_long_enough(config, splits, budget), splits, device, SilentReporter())
        except (InputError, torch.OutOfMemoryError) as error:
            yield Finding("model", "FAIL", str(error), "a run would stop with this message")
            return
        try:
            with trainer.fitting_threads():
                yield from _on(trainer, budget, config, picture, held)
        except torch.OutOfMemoryError:
            yield Finding(
                "memory", "FAIL", f"out of GPU memory at batch_size={config.batch_size}", "lower --batch-size"
            )
        finally:
            trainer.drop_graph()


def _on(trainer: Trainer, budget: Budget, config: RunConfig, picture: Path, held: int) -> Iterator[Finding]:
    """The checks that need a model."""
    yield checks.kernels(trainer)
    for check in (checks.first_loss, checks.gradients):
        yield (finding := check(trainer))
        if finding.state == "FAIL":
            return
    trial = Trial(trainer, budget)
    finding, test = trials.range_test(trial)
    if test is not None:
        write_atomically(picture, draw(test, config.optim.lr))
    yield finding
    factor = trials.usable_factor(finding, test, config.optim.lr)
    yield trials.by_heart(trial, factor)
    yield trials.first_steps(trial, factor)
    yield trials.cost(trial, config, held)


def _long_enough(config: RunConfig, splits: Splits, budget: Budget) -> RunConfig:
    """The configuration with at least as many passes as a trial has steps."""
    steps_per_pass = max(1, len(splits.train) // config.batch_size)
    passes = max(config.schedule.passes, -(-budget.most // steps_per_pass))
    return override(config, {"schedule.passes": passes})
