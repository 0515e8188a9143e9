"""The learning rate of every step of a run, as one table made before the first step.

A table can be plotted, tested against a formula and indexed by the step, so a resumed run needs no scheduler state;
the training loop copies entry t into the optimizer's learning-rate tensor.
"""

import numpy as np

from pocketvit.config import ScheduleConfig
from pocketvit.errors import InputError
from pocketvit.usercode import Code

SHAPES = {
    "cosine": lambda progress: (1 + np.cos(np.pi * progress)) / 2,
    "linear": lambda progress: 1 - progress,
    "wsd": lambda progress: 1 - progress,
}
"""How much is left of the fall from the peak, by `schedule.name`; progress is 0 until the fall starts, then grows to 1."""


def lr_table(schedule: ScheduleConfig, *, peak: float, steps_per_pass: int) -> np.ndarray:
    """The learning rate at step t = 0 … steps - 1.

    The steps of the warm-up rise in a straight line, from `warmup_lr` at step 0 towards `peak`, which the first step
    after them has (without a warm-up that is step 0). Then the rate falls from `peak` to `final_lr`, over all
    remaining steps (cosine, linear) or over the last `decay_frac` of the run, rounded to whole steps (wsd). The
    fall would arrive at `final_lr` at t = steps; the last step, t = steps - 1, is one step before that.

    Source: cosine: Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983; warmup-stable-decay: Hu et al. 2024,
        https://arxiv.org/abs/2404.06395.
    Differs: the cosine begins where the warm-up ends, so the rate has no jump there (timm's warmup_prefix=True); wsd
        falls in a straight line (Hägele et al. 2024, https://arxiv.org/abs/2405.18392), not exponentially.

    Args:
        schedule: its shape (for a user's own one see `_custom_shape`) and its length in passes.
        peak: greatest learning rate.
    Returns:
        learning rates, float64, (steps,).
    Raises:
        InputError: the user's own shape fails, or is none.
    """
    steps, warmup_steps = schedule.passes * steps_per_pass, schedule.warmup_steps(steps_per_pass)
    fall_steps = max(1, round(schedule.decay_frac * steps)) if schedule.name == "wsd" else steps - warmup_steps

    t = np.arange(steps, dtype=np.float64)
    progress = np.maximum(t - (steps - fall_steps), 0) / fall_steps  # 0 until the fall starts, 1 at t = steps
    name = schedule.name
    remaining = _custom_shape(name, progress) if isinstance(name, Code) else SHAPES[name](progress)
    table = schedule.final_lr + (peak - schedule.final_lr) * remaining
    warmup_lr = schedule.warmup_lr
    table[:warmup_steps] = warmup_lr + (peak - warmup_lr) * t[:warmup_steps] / max(warmup_steps, 1)
    return table


def _custom_shape(code: Code, progress: np.ndarray) -> np.ndarray:
    """What the user's function makes of progress: 1 is the peak, 0 the final learning rate.

    Args:
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
