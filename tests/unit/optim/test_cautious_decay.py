"""Cautious weight decay: which entries of a weight decay in a step, and by how much."""

import pytest
import torch
from torch import Tensor, nn

from pocketvit.config import OptimConfig, RunConfig, override
from pocketvit.errors import InputError
from pocketvit.optim.build import build_optimizers
from pocketvit.optim.capturable import agreeing

LR, DECAY = 0.01, 0.5


class Hidden(nn.Module):
    """A model with a matrix for Muon and a vector for AdamW."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(6, 4)])
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
            self.blocks[0].bias[0] = 0.0


def stepped(name: str, weight_decay: float, cautious: bool) -> list[Tensor]:
    """The parameters after one step on fixed gradients."""
    model = Hidden()
    config = OptimConfig(name=name, weight_decay=weight_decay, cautious_decay=cautious)
    optimizers = build_optimizers(config, model)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"].fill_(LR)
        optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


@pytest.mark.parametrize("name", ["adamw", "lion", "muon"])
def test_only_weights_that_agree_with_their_update_decay(name):
    start = [parameter.detach() for parameter in Hidden().parameters()]
    free, cautious = stepped(name, 0.0, False), stepped(name, DECAY, True)
    for before, after, decayed in zip(start, free, cautious, strict=True):
        agrees = (before - after) * before >= 0  # the update is subtracted
        torch.testing.assert_close(after - decayed, LR * DECAY * torch.where(agrees, before, 0), rtol=1e-4, atol=1e-7)
    assert any(((a - b).abs() > 1e-6).any() for a, b in zip(stepped(name, DECAY, False), cautious, strict=True))


@pytest.mark.parametrize("name", ["adamw", "lion", "muon"])
def test_without_decay_it_changes_nothing(name):
    assert all(map(torch.equal, stepped(name, 0.0, False), stepped(name, 0.0, True)))


def test_signs_are_compared_not_products():
    weights, directions = torch.tensor([1e-30, 1e-30, 0.0, -2.0]), torch.tensor([-1e-30, 1e-30, -1.0, 0.0])
    assert torch.equal(agreeing([weights], [directions])[0], torch.tensor([0.0, 1e-30, 0.0, -2.0]))


def test_it_is_refused_where_it_has_no_effect(tmp_path):
    (tmp_path / "mine.py").write_text("def make(groups, config): ...\n")
    with pytest.raises(InputError, match="optim.cautious_decay=True has no effect with optim.name="):
        override(RunConfig(), {"optim.cautious_decay": True, "optim.name": f"{tmp_path}/mine.py:make"})
