"""Muon against `torch.optim.Muon` and against a NumPy loop in float64."""

import numpy as np
import pytest
import torch
from torch import nn

from pocketvit.optim.muon import Muon

SHAPES = [(24, 16), (16, 24), (16, 16), (24, 16), (48, 16), (16, 24)]
STEPS = 6
LR = 0.02

SETTINGS = pytest.mark.parametrize(
    ("nesterov", "decay", "adjust"),
    [
        (True, 0.0, "original"),
        (True, 0.5, "match_rms_adamw"),
        (False, 0.5, "original"),
        (False, 0.0, "match_rms_adamw"),
    ],
)


def draw(seed: int) -> list[np.ndarray]:
    """A float32 matrix for each of `SHAPES`."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape, dtype=np.float32) for shape in SHAPES]


def start() -> list[nn.Parameter]:
    return [nn.Parameter(torch.tensor(array)) for array in draw(0)]


def trained(optimizer: torch.optim.Optimizer, params: list[nn.Parameter]) -> list[torch.Tensor]:
    for step in range(STEPS):
        for param, grad in zip(params, draw(step + 1), strict=True):
            param.grad = torch.tensor(grad)
        optimizer.step()
    return [param.detach() for param in params]


def both(nesterov: bool, decay: float, adjust: str, **ours) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The parameters after the same steps of our Muon and of torch's."""
    params, reference = start(), start()
    shared = {"lr": LR, "momentum": 0.9, "nesterov": nesterov, "weight_decay": decay, "adjust_lr_fn": adjust}
    result = trained(Muon(params, **shared, **ours), params)
    return result, trained(torch.optim.Muon(reference, **shared), reference)


@SETTINGS
def test_equals_torch_in_its_bfloat16(nesterov, decay, adjust):
    result, expected = both(nesterov, decay, adjust, ns_dtype=torch.bfloat16)
    # The same bfloat16 products, but batched ones may round differently: a few hundredths of an entry of O.
    torch.testing.assert_close(result, expected, rtol=0, atol=0.05 * LR * STEPS)


@SETTINGS
def test_equals_torch_to_float32_accuracy(nesterov, decay, adjust, monkeypatch):
    """torch's code, with its one cast to bfloat16 taken out, leaves rounding of float32 as the only difference."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    result, expected = both(nesterov, decay, adjust, ns_dtype=torch.float32)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=2e-6)


def numpy_muon(nesterov: bool, decay: float, adjust: str) -> list[np.ndarray]:
    """The formula of the docstring, one matrix at a time, the polynomial applied to the singular values themselves."""
    weights = [array.astype(np.float64) for array in draw(0)]
    momenta = [np.zeros_like(weight) for weight in weights]
    for step in range(STEPS):
        for i, grad in enumerate(draw(step + 1)):
            momenta[i] = 0.9 * momenta[i] + 0.1 * grad
            u, s, vh = np.linalg.svd(0.9 * momenta[i] + 0.1 * grad if nesterov else momenta[i], full_matrices=False)
            s = s / np.sqrt((s**2).sum())
            for _ in range(5):
                s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
            rows, columns = grad.shape
            scale = max(1, rows / columns) ** 0.5 if adjust == "original" else 0.2 * max(rows, columns) ** 0.5
            weights[i] = weights[i] * (1 - LR * decay) - LR * scale * (u * s) @ vh
    return weights


@SETTINGS
def test_equals_a_numpy_loop(nesterov, decay, adjust):
    params = start()
    optimizer = Muon(params, lr=LR, momentum=0.9, nesterov=nesterov, weight_decay=decay, adjust_lr_fn=adjust)
    for param, expected in zip(trained(optimizer, params), numpy_muon(nesterov, decay, adjust), strict=True):
        np.testing.assert_allclose(param.numpy(), expected, rtol=1e-5, atol=1e-5)
