"""Learning-rate tables against timm's scheduler and against closed forms, one step at a time."""

import math

import numpy as np
import pytest
import torch
from timm.scheduler import CosineLRScheduler

from pocketvit.config import ScheduleConfig
from pocketvit.optim.schedule import lr_table

RUNS = pytest.mark.parametrize(
    ("steps", "warmup_steps", "peak", "warmup_lr", "final_lr"),
    [(585, 58, 1e-3, 1e-6, 1e-6), (200, 0, 2e-3, 0.0, 1e-5), (7, 6, 0.1, 0.0, 0.0), (50, 1, 3e-4, 1e-3, 0.0)],
)


def table(schedule: str, steps: int, warmup_steps: int, peak: float, warmup_lr: float, final_lr: float, **more):
    rates = {"warmup_lr": warmup_lr, "final_lr": final_lr}
    config = ScheduleConfig(name=schedule, passes=steps, warmup_passes=warmup_steps, **rates, **more)
    return lr_table(config, peak=peak, steps_per_pass=1)


@RUNS
def test_cosine_equals_timm_update_by_update(steps, warmup_steps, peak, warmup_lr, final_lr):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    scheduler = CosineLRScheduler(
        optimizer,
        t_initial=steps - warmup_steps,
        lr_min=final_lr,
        warmup_t=warmup_steps,
        warmup_lr_init=warmup_lr,
        warmup_prefix=True,
        t_in_epochs=False,
    )
    expected = []
    for update in range(steps):
        scheduler.step_update(update)
        expected.append(optimizer.param_groups[0]["lr"])
    np.testing.assert_allclose(
        table("cosine", steps, warmup_steps, peak, warmup_lr, final_lr), expected, rtol=1e-12, atol=1e-18
    )


def warm_up(t: int, warmup_steps: int, peak: float, warmup_lr: float) -> float:
    return warmup_lr * (1 - t / warmup_steps) + peak * t / warmup_steps


@RUNS
def test_cosine_equals_its_closed_form(steps, warmup_steps, peak, warmup_lr, final_lr):
    """With cos² of half the angle, and the angle counted back from the end."""
    expected = [
        warm_up(t, warmup_steps, peak, warmup_lr)
        if t < warmup_steps
        else final_lr + (peak - final_lr) * math.sin(math.pi / 2 * (steps - t) / (steps - warmup_steps)) ** 2
        for t in range(steps)
    ]
    np.testing.assert_allclose(
        table("cosine", steps, warmup_steps, peak, warmup_lr, final_lr), expected, rtol=1e-9, atol=1e-15
    )


@RUNS
def test_linear_equals_its_closed_form(steps, warmup_steps, peak, warmup_lr, final_lr):
    expected = [
        warm_up(t, warmup_steps, peak, warmup_lr)
        if t < warmup_steps
        else (peak * (steps - t) + final_lr * (t - warmup_steps)) / (steps - warmup_steps)
        for t in range(steps)
    ]
    np.testing.assert_allclose(
        table("linear", steps, warmup_steps, peak, warmup_lr, final_lr), expected, rtol=1e-12, atol=1e-18
    )


@pytest.mark.parametrize(
    ("steps", "warmup_steps", "decay_frac", "decay_steps"),
    [(1000, 100, 0.2, 200), (1000, 0, 1.0, 1000), (300, 30, 0.9, 270), (9, 0, 0.25, 2), (10, 3, 0.01, 1)],
)
def test_wsd_equals_its_closed_form(steps, warmup_steps, decay_frac, decay_steps):
    peak, warmup_lr, final_lr = 1e-3, 1e-6, 1e-5
    expected = []
    for t in range(steps):
        if t < warmup_steps:
            expected.append(warm_up(t, warmup_steps, peak, warmup_lr))
        elif t < steps - decay_steps:
            expected.append(peak)
        else:
            expected.append(final_lr + (peak - final_lr) * (steps - t) / decay_steps)
    result = table("wsd", steps, warmup_steps, peak, warmup_lr, final_lr, decay_frac=decay_frac)
    np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-18)


@pytest.mark.parametrize(("steps", "warmup_steps"), [(100, 10), (100, 1), (7, 6)])
def test_constant_equals_torchs_warm_up_that_stays(steps, warmup_steps):
    peak, warmup_lr = 1e-3, 1e-6
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, warmup_lr / peak, 1.0, warmup_steps)
    expected = []
    for _ in range(steps):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(table("constant", steps, warmup_steps, peak, warmup_lr, 1e-5), expected, rtol=1e-9)
    assert (table("constant", steps, 0, peak, warmup_lr, 1e-5) == peak).all()
