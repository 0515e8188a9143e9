"""Clipped gradients of a training step against NumPy in float64, and against `torch.nn.utils.clip_grad_norm_`."""

import numpy as np
import pytest
import torch
from objective_cases import OBJECTIVES

from pocketvit.config import override
from pocketvit.data import Split, Splits
from pocketvit.optim.build import named_parameters
from pocketvit.recipes import recipe
from pocketvit.training.progress import SilentReporter
from pocketvit.training.trainer import Trainer

SET = Split(np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8), np.arange(8) % 2)
SMALL = {"batch_size": 8, "schedule.passes": 2, "schedule.warmup_passes": 0, "model.width": 24, "model.num_heads": 2}
SMALL |= {"model.depth": 1}


def gradients(clip: float | None, **values) -> dict[str, torch.Tensor]:
    """Of the first step, by name, the objective's layers among them."""
    config = override(recipe("paper"), SMALL | values | {"optim.grad_clip": clip})
    splits = Splits(SET, None, SET, ("a", "b"), "synthetic", ())
    trainer = Trainer(config, splits, torch.device("cpu"), SilentReporter())
    trainer.step.set_chunk(trainer.chunks.load(0, 0, 1))
    trainer.step.backward()
    return {name: p.grad for name, p in named_parameters(trainer.model, trainer.objective.layers)}


@pytest.mark.parametrize("objective", [{}, OBJECTIVES["mae"]], ids=["classes", "mae"])
def test_gradients_are_scaled_down_to_the_norm_of_all_together(objective):
    plain = {name: grad.double().numpy() for name, grad in gradients(None, **objective).items()}
    norm = np.sqrt(sum((grad**2).sum() for grad in plain.values()))
    assert any(name.startswith("objective.") for name in plain) == bool(objective)
    for share in (0.1, 0.999, 1.001, 50.0):
        found = gradients(share * norm, **objective)
        for name, grad in plain.items():
            np.testing.assert_allclose(found[name].numpy(), min(share, 1) * grad, rtol=1e-4, atol=1e-8)
    theirs = {name: torch.nn.Parameter(torch.zeros(grad.shape)) for name, grad in plain.items()}
    for name, parameter in theirs.items():
        parameter.grad = torch.tensor(plain[name], dtype=torch.float32)
    torch.nn.utils.clip_grad_norm_(theirs.values(), 0.1 * norm, foreach=False)
    for name, grad in gradients(0.1 * norm, **objective).items():
        torch.testing.assert_close(grad, theirs[name].grad, rtol=1e-5, atol=1e-9)


def test_the_step_takes_the_clipped_gradients():
    """Of a plain gradient descent, a step is as long as the clipped gradient."""
    config = override(recipe("paper"), SMALL | {"optim.grad_clip": 0.01})
    trainer = Trainer(
        config, Splits(SET, None, SET, ("a", "b"), "synthetic", ()), torch.device("cpu"), SilentReporter()
    )
    trainer.step.optimizers = [torch.optim.SGD(trainer.model.parameters(), lr=torch.tensor(1.0))]
    trainer.step.optimizers[0].param_groups[0]["peak_lr"] = 1.0
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.step.factors.fill_(1.0)
    trainer.step.set_chunk(trainer.chunks.load(0, 0, 1))
    trainer.step()
    moves = [(p.detach() - old).double() for p, old in zip(trainer.model.parameters(), before, strict=True)]
    assert float(torch.cat([move.flatten() for move in moves]).norm()) == pytest.approx(0.01, rel=1e-3)
