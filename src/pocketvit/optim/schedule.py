"""The learning rate of every step of a run, as one table made before the first step.

A table can be plotted, tested against a formula and indexed by the step, so a resumed run needs no scheduler state;
the training loop copies entry t into the optimizer's learning-rate tensor.
"""

import numpy as np

from pocketvit.checks import above, at_least, between, unknown
from pocketvit.errors import InputError
from pocketvit.usercode import Code

SCHEDULES = ("cosine", "linear", "wsd")
"""Shapes after the warm-up: half a cosine, a straight line, or warmup-stable-decay (constant, then a straight line)."""


def lr_table(
    schedule: str | Code,
    *,
    peak: float,
    steps: int,
    warmup_steps: int,
    warmup_lr: float,
    final_lr: float,
    decay_frac: float = 0.2,
) -> np.ndarray:
    """The learning rate at step t = 0 … steps - 1.

    Steps 0 … warmup_steps - 1 rise in a straight line, from `warmup_lr` at step 0 towards `peak`, which step
    `warmup_steps` has (with warmup_steps = 0 that is step 0). Then the rate falls from `peak` to `final_lr`, over all
    remaining steps (cosine, linear) or over the last `decay_frac` of the run, rounded to whole steps (wsd). The
    fall would arrive at `final_lr` at t = steps; the last step, t = steps - 1, is one step before that.

    Source: cosine: Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983; warmup-stable-decay: Hu et al. 2024,
        https://arxiv.org/abs/2404.06395.
    Differs: the cosine begins where the warm-up ends, so the rate has no jump there (timm's warmup_prefix=True); wsd
        falls in a straight line (Hägele et al. 2024, https://arxiv.org/abs/2405.18392), not exponentially.

    Args:
        schedule: one of `SCHEDULES`, or a user's own shape (see `_own_shape`).
        peak: greatest learning rate.
        steps: number of steps in the run.
        warmup_steps: number of steps below the peak at the start, less than `steps`.
        warmup_lr: learning rate of step 0 where there is a warm-up.
        final_lr: learning rate at the end of the fall.
        decay_frac: fraction of all steps in which wsd falls; other schedules do not read it.
    Returns:
        learning rates, float64, (steps,).
    Raises:
        InputError: an unknown schedule, or a value out of its range; named by its field in the configuration.
    """
    _check(schedule, peak, steps, warmup_steps, warmup_lr, final_lr)
    fall_steps = steps - warmup_steps
    if schedule == "wsd":
        between("schedule.decay_frac", decay_frac, 0, 1, open_left=True)
        fall_steps = max(1, round(decay_frac * steps))
        if warmup_steps + fall_steps > steps:
            raise InputError(
                f"schedule.decay_frac={decay_frac}: {warmup_steps} steps of warm-up and {fall_steps} of decay do not "
                f"fit in {steps}; lower it or schedule.warmup_passes"
            )

    t = np.arange(steps, dtype=np.float64)
    progress = np.maximum(t - (steps - fall_steps), 0) / fall_steps  # 0 until the fall starts, 1 at t = steps
    if isinstance(schedule, Code):
        remaining = _own_shape(schedule, progress)
    else:
        remaining = (1 + np.cos(np.pi * progress)) / 2 if schedule == "cosine" else 1 - progress
    table = final_lr + (peak - final_lr) * remaining
    table[:warmup_steps] = warmup_lr + (peak - warmup_lr) * t[:warmup_steps] / max(warmup_steps, 1)
    return table


def _own_shape(code: Code, progress: np.ndarray) -> np.ndarray:
    """What the user's function makes of progress: 1 is the peak, 0 the final learning rate.

    Args:
        code: a function of one array.
        progress: 0 at the end of the warm-up, 1 at the end of the run, float64, (steps,).
    Returns:
        float64 (steps,).
    Raises:
        InputError: it fails, or gives anything but as many numbers of at least 0.
    """
    found = code.call(progress=progress.copy())
    try:
        shape = np.asarray(found, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{code} gives a {type(found).__name__}; it must give an array of numbers") from error
    if shape.shape != progress.shape:
        raise InputError(f"{code} gives numbers of shape {shape.shape}; it must give {progress.shape}, one a step")
    if not (np.isfinite(shape) & (shape >= 0)).all():
        at = int(np.argmin(np.isfinite(shape) & (shape >= 0)))
        raise InputError(f"{code} gives {shape[at]} at progress {progress[at]:.3f}; it must give numbers of at least 0")
    return shape


def _check(schedule: str | Code, peak: float, steps: int, warmup_steps: int, warmup_lr: float, final_lr: float) -> None:
    """Raise an `InputError` that names the configuration's field for the first wrong value."""
    if not isinstance(schedule, Code) and schedule not in SCHEDULES:
        raise InputError("schedule.name: " + unknown("schedule", schedule, SCHEDULES))
    above("optim.lr", peak, 0)
    at_least("schedule.warmup_lr", warmup_lr, 0)
    at_least("schedule.final_lr", final_lr, 0)
    if steps < 1:
        raise InputError(f"schedule.passes gives {steps} steps: must give at least 1")
    if not 0 <= warmup_steps < steps:
        raise InputError(
            f"schedule.warmup_passes gives {warmup_steps} steps of warm-up: must give from 0 to {steps - 1} in a run "
            f"of {steps} steps"
        )
