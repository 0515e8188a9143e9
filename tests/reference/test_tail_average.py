"""The average of a run's last part against the oracle of another hand."""

import numpy as np
import pytest
import torch
from neighbours.tail_average import tail_average
from torch import nn

from pocketvit.optim.ema import EMA

STEPS = 40


def weights_at(step: int) -> np.ndarray:
    return 1 + np.random.default_rng(step).standard_normal((5, 4))


@pytest.mark.parametrize("share", [0.6, 1.0])
@pytest.mark.parametrize(("start", "tau"), [(1, 5.0), (20, 10.0), (30, 150.0), (STEPS - 1, 3.0)])
def test_equals_the_oracle(start, tau, share):
    parameter = nn.Parameter(torch.zeros(5, 4))
    ema = EMA({"weight": parameter}, 1 - 1 / tau, start=start, share=share)
    for step in range(STEPS):
        with torch.no_grad():
            parameter.copy_(torch.tensor(weights_at(step)))
        ema.update(torch.tensor([step]))
        if step == start - 1:
            torch.testing.assert_close(ema.averages()["weight"], parameter.detach())
    wanted = tail_average([weights_at(step) for step in range(STEPS)], start, tau, share)
    np.testing.assert_allclose(ema.averages()["weight"].numpy(), wanted, rtol=1e-5, atol=1e-6)
