"""More passes for a run that is finished or stopped: `--resume RUN --schedule.passes N`.

The passes are part of what a run computes. So the configuration records where the run was given more (`schedule.extended`), and
its hash is not that of a run that had them from the start, even where both compute the same.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pocketvit.config import RunConfig, ScheduleConfig, override
from pocketvit.errors import InputError
from pocketvit.optim.schedule import lr_table
from pocketvit.runs.folder import RunFolder
from pocketvit.training.checkpoint import load_checkpoint


def extended(config: RunConfig, folder: Path, passes: int) -> RunConfig:
    """The configuration of a run with more passes; as it is if it has that many.

    The run follows its old schedule to the end of the pass that it is in.

    Raises:
        InputError: fewer passes, a run that has not begun, or fields for which the result would not be well defined.
    """
    schedule = config.schedule
    if passes == schedule.passes:
        return config
    if passes < schedule.passes:
        raise InputError(f"--schedule.passes {passes}: the run in {folder} has {schedule.passes}; give more")
    if schedule.sides:
        raise InputError(f"schedule.sides={schedule.sides} shrinks images in parts of the whole run: no more passes")
    if config.optim.ema_start:
        raise InputError(f"optim.ema_start={config.optim.ema_start} is a part of the whole run: no more passes")
    if config.objective.name == "dino":
        raise InputError("objective.name=dino changes its teacher's pace over the whole run: no more passes")
    if config.train.patience is not None:
        raise InputError(f"train.patience={config.train.patience} decides when this run ends: no more passes")
    found, _ = load_checkpoint(RunFolder(folder).checkpoints)
    if found is None:
        raise InputError(f"the run in {folder} has no checkpoint to go on from; start it anew with more passes")
    done = found[1].pass_index + (found[1].step_in_pass > 0)
    return override(
        config, {"schedule.passes": passes, "schedule.extended": (*schedule.extended, schedule.passes, done)}
    )


def extension_note(config: RunConfig, steps_per_pass: int) -> str:
    """What more passes do to the learning rate, in one line."""
    passes, done = config.schedule.extended[-2:]
    rates = {"peak": config.optim.lr, "steps_per_pass": steps_per_pass}
    table, step = lr_table(config.schedule, **rates), done * steps_per_pass
    straight = lr_table(override(config, {"schedule.extended": ()}).schedule, **rates)
    exact = np.array_equal(table, straight)
    return (
        f"{config.schedule.passes} passes instead of {passes}: from pass {done + 1} on, the learning rate is that of a run of "
        f"{config.schedule.passes}, "
        + ("as it was so far" if exact else f"{table[step]:.2g} after {table[max(step - 1, 0)]:.2g}")
    )


def lengthened(state: dict[str, Tensor], schedule: ScheduleConfig, steps_per_pass: int) -> dict[str, Tensor]:
    """The tensors of a checkpoint; those of a run that had fewer passes with room for the logged values of all steps."""
    earlier, steps = {passes * steps_per_pass for passes in schedule.extended[::2]}, schedule.passes * steps_per_pass
    return {
        name: torch.cat([tensor, tensor.new_full((steps - len(tensor),), torch.nan)])
        if (name == "run.losses" or name.startswith("logged.")) and len(tensor) in earlier
        else tensor
        for name, tensor in state.items()
    }
