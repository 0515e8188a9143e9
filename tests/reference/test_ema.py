"""The average of the weights against a NumPy loop in float64, and a resumed one against an uninterrupted one."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pocketvit.optim.ema import EMA


def weights_at(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    return {"matrix": 1 + 0.1 * rng.standard_normal((5, 4)), "bias": rng.standard_normal(3)}


def advance(ema: EMA, params: dict[str, nn.Parameter], steps: range) -> None:
    for step in steps:
        with torch.no_grad():
            for name, values in weights_at(step).items():
                params[name].copy_(torch.tensor(values))
        ema.update()


def overwrite(mine: dict[str, Any], saved: dict[str, Any]) -> None:
    """Copy a saved state into the tensors in use, as a resumed run does."""
    for name, average in mine["averages"].items():
        average.copy_(saved["averages"][name])
    mine["window"].copy_(saved["window"])


def new_parameters() -> dict[str, nn.Parameter]:
    return {name: nn.Parameter(torch.full(values.shape, 9.0)) for name, values in weights_at(0).items()}


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9, 0.999, 0.99999])
@pytest.mark.parametrize("steps", [1, 2, 300])
def test_equals_a_numpy_loop(decay, steps):
    params = new_parameters()
    ema = EMA(params, decay)
    advance(ema, params, range(steps))

    averages = ema.averages()
    for name, values in weights_at(0).items():
        total = np.zeros_like(values)
        for step in range(steps):
            total = decay * total + (1 - decay) * weights_at(step)[name]
        np.testing.assert_allclose(averages[name].numpy(), total / (1 - decay**steps), rtol=2e-5, atol=2e-6)


def test_a_long_run_neither_drifts_nor_stops_short():
    ema = EMA({"weight": nn.Parameter(torch.tensor([3.0]))}, 0.9995)
    for step in range(1, 20001):
        ema.update()
        if step in (1, 100, 20000):
            assert ema.state_dict()["window"].item() == pytest.approx((1 - 0.9995**step) / 0.0005, rel=1e-4)
            assert ema.averages()["weight"].item() == 3.0


def test_resume_equals_uninterrupted_bit_for_bit():
    params = new_parameters()
    ema = EMA(params, 0.9)
    advance(ema, params, range(7))
    saved = copy.deepcopy(ema.state_dict())
    advance(ema, params, range(7, 12))

    resumed_params = new_parameters()
    resumed = EMA(resumed_params, 0.9)
    advance(resumed, resumed_params, range(50, 52))  # a warm-up that loading must overwrite
    overwrite(resumed.state_dict(), saved)
    advance(resumed, resumed_params, range(7, 12))
    for name, average in ema.averages().items():
        assert torch.equal(average, resumed.averages()[name])
