"""The learning rate of every step of a run, as one table made before the first step.

A table can be plotted, tested against a formula and indexed by the step, so a resumed run needs no scheduler state;
the training loop copies entry t into the optimizer's learning-rate tensor.
"""

from dataclasses import replace

import numpy as np

from pocketvit.config import ScheduleConfig
from pocketvit.errors import InputError
from pocketvit.usercode import Code

SHAPES = {
    "cosine": lambda progress: (1 + np.cos(np.pi * progress)) / 2,
    "linear": lambda progress: 1 - progress,
    "wsd": lambda progress: 1 - progress,
    "constant": np.ones_like,
}
"""The remaining share of the decay from the peak, by `schedule.name`; progress is 0 until it starts, then grows to 1."""


def lr_table(schedule: ScheduleConfig, *, peak: float, steps_per_pass: int) -> np.ndarray:
    """The learning rate at step t = 0 … steps - 1.

    In the warm-up, the rate rises linearly from `warmup_lr` at step 0 to `peak`, which the first step
    after it has (without a warm-up, step 0). Then it decays from `peak` to `final_lr`, over all
    remaining steps (cosine, linear) or over the last `decay_frac` of the run, rounded to whole steps (wsd), or stays
    (constant). The decay would reach `final_lr` at t = steps; the last step, t = steps - 1, is one step before that. A run
    that was given more passes follows the table of its former length up to there, and that of the new one from there.

    Source: cosine: Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983; warmup-stable-decay: Hu et al. 2024,
        https://arxiv.org/abs/2404.06395.
    Differs: the cosine begins at the end of the warm-up, so the rate does not jump (timm's warmup_prefix=True); wsd
        decays linearly (Hägele et al. 2024, https://arxiv.org/abs/2405.18392), not exponentially.

    Args:
        schedule: its shape (for user-defined ones see `_custom_shape`) and its length in passes.
        peak: greatest learning rate.
    Returns:
        learning rates, float64, (steps,).
    Raises:
        InputError: a user-defined shape fails or is invalid.
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
    if schedule.extended:
        *before, passes, done = schedule.extended
        earlier = replace(schedule, passes=passes, extended=tuple(before))
        taken = slice(done * steps_per_pass)
        table[taken] = lr_table(earlier, peak=peak, steps_per_pass=steps_per_pass)[taken]
    return table


def _custom_shape(code: Code, progress: np.ndarray) -> np.ndarray:
    """The output of the user's function for progress: 1 is the peak, 0 the final learning rate.

    Args:
        progress: 0 at the end of the warm-up, 1 at the end of the run, float64, (steps,).
    Returns:
        float64 (steps,).
    Raises:
        InputError: it fails, or does not return as many numbers of at least 0.
    """
    found = code.call(progress=progress.copy())
    try:
        shape = np.asarray(found, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{code} returns a {type(found).__name__}; it must return an array of numbers") from error
    if shape.shape != progress.shape:
        raise InputError(
            f"{code} returns numbers of shape {shape.shape}; it must return {progress.shape}, one per step"
        )
    if not (np.isfinite(shape) & (shape >= 0)).all():
        at = int(np.argmin(np.isfinite(shape) & (shape >= 0)))
        raise InputError(
            f"{code} returns {shape[at]} at progress {progress[at]:.3f}; it must return numbers of at least 0"
        )
    return shape
