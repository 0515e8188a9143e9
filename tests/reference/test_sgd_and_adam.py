"""SGD and Adam against `torch.optim`, as the training loop builds them and as classes."""

import pytest
import torch
from torch import nn

from pocketvit.config import OptimConfig
from pocketvit.errors import InputError
from pocketvit.optim.build import build_optimizers
from pocketvit.optim.sgd import SGD
from pocketvit.optim.state import create_state

SHAPES = [(7, 5), (16, 32), (5,), (3, 2, 4, 4), (1025,)]
STEPS = 6
FORMS = [{}, {"momentum": 0.0}, {"nesterov": False}, {"weight_decay": 0.3}, {"weight_decay": 0.3, "decay": "matrices"}]
ADAMS = [{}, {"betas": (0.8, 0.95)}, {"weight_decay": 0.3}, {"weight_decay": 0.3, "decay": "matrices"}]


def draw(seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


class Model(nn.Module):
    """Parameters of all shapes, those of matrices named as such."""

    def __init__(self) -> None:
        super().__init__()
        for i, tensor in enumerate(draw(0)):
            self.register_module(f"layer{i}", nn.Module())
            getattr(self, f"layer{i}").weight = nn.Parameter(tensor)


def lr_at(step: int) -> float:
    return 0.05 / (1 + step)


def trained(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], dtype: torch.dtype) -> list[torch.Tensor]:
    for step in range(STEPS):
        for group in optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(lr_at(step))
            else:
                group["lr"] = lr_at(step)
        for param, grad in zip(params, draw(step + 1), strict=True):
            param.grad = grad.to(dtype)
        optimizer.step()
    return [param.detach() for param in params]


def both(name: str, values: dict, fused: bool, **given) -> None:
    """A run's optimizer, its state made beforehand, and torch's in float64 take the same steps."""
    config, model = OptimConfig(**{"name": name, "weight_decay": 0.0} | values), Model()
    (optimizer,) = build_optimizers(config, model, fused=fused)
    create_state([optimizer])
    ours = trained(optimizer, list(model.parameters()), torch.float32)
    reference = [nn.Parameter(tensor.double()) for tensor in draw(0)]
    groups = [
        {"params": [p], "weight_decay": config.weight_decay * (config.decay == "all" or p.ndim > 1)} for p in reference
    ]
    theirs = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[name](groups, lr=0.0, **given)
    for our, their in zip(ours, trained(theirs, reference, torch.float64), strict=True):
        torch.testing.assert_close(our.double(), their, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("values", FORMS, ids=str)
@pytest.mark.parametrize("fused", [False, True], ids=["plain", "flat"])
def test_sgd_equals_torchs(values, fused):
    if fused:
        pytest.importorskip("triton")  # `flat` imports it, though SGD there needs no kernel
    momentum = values.get("momentum", 0.9)
    both("sgd", values, fused, momentum=momentum, nesterov=values.get("nesterov", True) and momentum > 0)


@pytest.mark.parametrize("values", ADAMS, ids=str)
def test_adam_equals_torchs(values):
    both("adam", values, False, betas=values.get("betas", (0.9, 0.999)))


def test_decay_is_part_of_the_gradient_not_decoupled():
    """In Adam's first step every entry moves by the learning rate, whatever decays: its moments see the decay."""
    model = Model()
    (optimizer,) = build_optimizers(OptimConfig(name="adam", weight_decay=0.3), model)
    optimizer.param_groups[0]["lr"].fill_(0.01)
    for param in model.parameters():
        param.grad = torch.zeros_like(param)
    optimizer.step()
    moves = torch.cat([(p.detach() - old).flatten() for p, old in zip(model.parameters(), draw(0), strict=True)])
    torch.testing.assert_close(moves.abs(), torch.full_like(moves, 0.01), rtol=1e-2, atol=0)
    with pytest.raises(InputError, match=r"optim.cautious_decay=True needs decoupled .* optim.name=adam .*; use adamw"):
        OptimConfig(name="adam", cautious_decay=True)


@pytest.mark.parametrize("momentum", [1.0, -0.1])
def test_a_momentum_out_of_range_is_refused(momentum):
    with pytest.raises(InputError, match=f"momentum={momentum}"):
        SGD(list(Model().parameters()), momentum=momentum)
