"""Tokens and classifiers for the tests of the head's kernels.

Shapes: B images, M tokens, D width, T vectors that the classifier reads, K classes.
"""

from typing import NamedTuple

import torch
from block_cases import assert_small
from poison import poisoned_memory
from torch import Tensor

from pocketvit.kernels.head import HeadPlan, HeadWeights, head_loss, head_loss_reference

NAMES = ("loss", "dx", "dfactor", "doffset", "dw", "db")


class HeadCase(NamedTuple):
    """The sizes of a head; num_cls=0 is mean pooling."""

    B: int
    M: int
    D: int
    K: int
    num_cls: int = 1
    num_special: int = 1

    @property
    def plan(self) -> HeadPlan:
        return HeadPlan(self.num_cls, self.num_special, 1 / (2 * self.B), 1e-6)


HEAD_CASES = [
    HeadCase(5, 1, 192, 10),
    HeadCase(1, 1, 192, 2),
    HeadCase(67, 1, 64, 16),
    HeadCase(4, 2, 192, 17, num_cls=2),
    HeadCase(6, 2, 96, 100, num_cls=2, num_special=2),
    HeadCase(3, 9, 64, 7, num_cls=0, num_special=0),
    HeadCase(2, 65, 192, 10, num_cls=0, num_special=1),
    HeadCase(3, 12, 32, 200, num_cls=0, num_special=3),
    HeadCase(2, 49, 192, 10, num_cls=0, num_special=0),
]


class HeadInputs(NamedTuple):
    """What a head is called with."""

    x: Tensor
    targets: Tensor
    weights: HeadWeights


def head_inputs(case: HeadCase, device: str = "cpu", dtype: torch.dtype = torch.float32, seed: int = 0) -> HeadInputs:
    """Tokens with a mean and a spread of their own, exact in `dtype`; mixed labels that do not quite sum to 1."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    x = 3 * normal(case.B, case.M, 1) + (0.5 + normal(case.B, case.M, 1).abs()) * normal(case.B, case.M, case.D)
    targets = (3 * normal(case.B, case.K)).softmax(dim=1) * 1.01
    columns = max(1, case.num_cls) * case.D
    weights = 1 + 0.3 * normal(case.D), normal(case.D), normal(case.K, columns) / columns**0.5, normal(case.K)
    return HeadInputs(x.to(device, dtype), targets.to(device), HeadWeights(*(w.to(device) for w in weights)))


def head_results(inputs: HeadInputs, plan: HeadPlan, *, exact: bool = False, upstream: float = 1.0) -> list[Tensor]:
    """The loss, how many are right, and the gradients of `upstream` times the loss; `exact` is the reference in float64."""
    leaves = [(t.double() if exact else t).detach().clone().requires_grad_() for t in (inputs.x, *inputs.weights)]
    function = head_loss_reference if exact else head_loss
    loss, right = function(leaves[0], inputs.targets, HeadWeights(*leaves[1:]), plan)
    assert not right.requires_grad
    return [loss.detach(), right, *torch.autograd.grad(loss, leaves, torch.full_like(loss, upstream))]


def assert_head_is_as_float64(case: HeadCase, bound: float, device: str = "cpu", dtype: torch.dtype = torch.float32):
    """Loss and gradients of the kernels, on poisoned memory, also where more is made of the loss."""
    inputs = head_inputs(case, device, dtype)
    for upstream in (1.0, -0.7):
        with poisoned_memory(device):
            found = head_results(inputs, case.plan, upstream=upstream)
        wanted = head_results(inputs, case.plan, exact=True, upstream=upstream)
        assert found[2].dtype == dtype and all(f.dtype == torch.float32 for f in (*found[:2], *found[3:]))
        torch.testing.assert_close(found.pop(1), wanted.pop(1).float(), rtol=1e-6, atol=0)
        pairs = zip(NAMES, found, wanted, strict=True)
        assert_small({name: float((a.double() - b).norm() / b.norm()) for name, a, b in pairs}, bound)
        if not case.num_cls and case.num_special:
            assert not found[1][:, : case.num_special].any(), "tokens that are not read have no gradient"
