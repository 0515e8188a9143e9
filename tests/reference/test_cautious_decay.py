"""Cautious weight decay of AdamW, Lion and Muon against the oracle of another hand."""

import numpy as np
import pytest
import torch
from neighbours import cautious_decay
from torch import nn

from pocketvit.config import OptimConfig
from pocketvit.optim.build import build_optimizers

STEPS, DECAY = 6, 0.5
ORACLES = {
    "adamw": (cautious_decay.adamw_step, {}),
    "lion": (cautious_decay.lion_step, {}),
    "muon": (cautious_decay.muon_step, {"momentum": 0.95}),
}


def lr_at(step: int) -> float:
    return 0.02 / (1 + step)


@pytest.mark.parametrize("name", ORACLES)
def test_equals_the_oracle(name):
    rng = np.random.default_rng(0)
    model = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(6, 4, bias=False)]), "head": nn.Linear(2, 3, bias=False)})
    matrix = model["blocks"][0].weight
    matrix.data = torch.tensor(rng.standard_normal((4, 6)), dtype=torch.float32)
    oracle, given = ORACLES[name]
    wanted, plain = (matrix.detach().double().numpy() for _ in range(2))
    states: tuple[dict, dict] = {}, {}
    optimizers = build_optimizers(OptimConfig(name=name, weight_decay=DECAY, cautious_decay=True), model)
    for step in range(STEPS):
        grad = rng.standard_normal((4, 6)).astype(np.float32)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        matrix.grad = torch.tensor(grad)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                if isinstance(group["lr"], torch.Tensor):
                    group["lr"].fill_(lr_at(step))
            optimizer.step()
        wanted = oracle(wanted, grad.astype(np.float64), states[0], lr_at(step), decay=DECAY, **given)
        plain = oracle(plain, grad.astype(np.float64), states[1], lr_at(step), decay=DECAY, cautious=False, **given)
    np.testing.assert_allclose(matrix.detach().numpy(), wanted, rtol=1e-4, atol=2e-5)
    assert abs(wanted - plain).max() > 1e-3
