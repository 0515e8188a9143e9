"""Lion against a NumPy loop in float64 and against timm's."""

import numpy as np
import pytest
import timm.optim
import torch
from torch import nn

from pocketvit.optim.lion import Lion

SHAPES = [(7, 5), (5,), (3, 2, 4, 4), ()]
STEPS = 12


def draw(seed: int) -> list[np.ndarray]:
    """A float32 array for each of `SHAPES`."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape, dtype=np.float32) for shape in SHAPES]


def lr_at(step: int) -> float:
    return 0.01 / (1 + step)


def trained(optimizer: torch.optim.Optimizer, params: list[nn.Parameter]) -> list[torch.Tensor]:
    """The parameters after `STEPS` steps with a changing learning rate."""
    for step in range(STEPS):
        for group in optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(lr_at(step))
            else:
                group["lr"] = lr_at(step)
        for param, grad in zip(params, draw(step + 1), strict=True):
            param.grad = torch.tensor(grad)
        optimizer.step()
    return [param.detach() for param in params]


def start() -> list[nn.Parameter]:
    return [nn.Parameter(torch.tensor(array)) for array in draw(0)]


def numpy_lion(beta1: float, beta2: float, decay: float) -> list[np.ndarray]:
    """The paper's Algorithm 2, entry by entry in float64."""
    weights = [array.astype(np.float64) for array in draw(0)]
    momenta = [np.zeros_like(weight) for weight in weights]
    for step in range(STEPS):
        for i, grad in enumerate(draw(step + 1)):
            direction = np.sign(beta1 * momenta[i] + (1 - beta1) * grad)
            weights[i] = weights[i] - lr_at(step) * (direction + decay * weights[i])
            momenta[i] = beta2 * momenta[i] + (1 - beta2) * grad
    return weights


SETTINGS = pytest.mark.parametrize(
    ("betas", "decay"), [((0.9, 0.99), 0.0), ((0.9, 0.99), 0.3), ((0.95, 0.98), 0.05), ((0.0, 0.5), 0.1)]
)


@SETTINGS
def test_equals_a_numpy_loop(betas, decay):
    params = start()
    result = trained(Lion(params, lr=1.0, betas=betas, weight_decay=decay), params)
    for param, expected in zip(result, numpy_lion(*betas, decay), strict=True):
        np.testing.assert_allclose(param.numpy(), expected, rtol=1e-5, atol=1e-6)


@SETTINGS
def test_equals_timm(betas, decay):
    params, reference = start(), start()
    result = trained(Lion(params, lr=1.0, betas=betas, weight_decay=decay), params)
    expected = trained(timm.optim.Lion(reference, lr=1.0, betas=betas, weight_decay=decay), reference)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)
