"""Inputs for the tests of the block kernels, and what they are measured by.

Shapes: B images, N tokens, D width, L layers, A heads, A_kv key heads, F columns of the projection, H hidden width.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pocketvit.kernels.attention import SOFTMAX
from pocketvit.kernels.block_weights import BlockPlan, BlockWeights

NAMES = ("out", "dx", *(f"d{name}" for name in BlockWeights._fields))


class Case(NamedTuple):
    """A stack of blocks and the tokens it gets."""

    B: int
    N: int
    width: int
    num_heads: int
    mlp_ratio: int
    taken: int
    num_layers: int = 2
    num_kv_heads: int | None = None
    centred: bool = True
    tanh: bool = False

    @property
    def plan(self) -> BlockPlan:
        """As the kernels want it."""
        return BlockPlan(
            width=self.width,
            hidden_width=self.mlp_ratio * self.width,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads or self.num_heads,
            mixer=SOFTMAX,
            centred=self.centred,
            tanh=self.tanh,
            eps=1e-6,
            taken=self.taken,
        )


class Inputs(NamedTuple):
    """What a stack of blocks is called with, and the gradient of what it returns."""

    x: Tensor
    """(B, N, D)."""
    keep: Tensor
    """(L, 2, B), float32."""
    weights: BlockWeights
    """float32."""
    dout: Tensor
    """(B, taken, D)."""

    @property
    def leaves(self) -> list[Tensor]:
        """What has a gradient: x and the weights."""
        return [self.x, *self.weights]


def random_inputs(case: Case, device: str = "cpu", dtype: torch.dtype = torch.float32, seed: int = 0) -> Inputs:
    """Tokens of size 1 that every layer keeps at about that size; all numbers are exact in `dtype`.

    Of every layer and branch some images skip it and some do not, where there are two images or more.
    """
    generator, plan, L = torch.Generator().manual_seed(seed), case.plan, case.num_layers
    D, H, F = plan.width, plan.hidden_width, (plan.num_heads + 2 * plan.num_kv_heads) * plan.head_dim

    def normal(*shape: int, size: float = 1.0) -> Tensor:
        return (size * torch.randn(shape, generator=generator)).to(dtype)

    def linear(rows: int, columns: int) -> tuple[Tensor, Tensor]:
        weight, bias = normal(L, rows, columns, size=columns**-0.5), normal(L, rows, size=0.5)
        return weight.float().to(device), bias.float().to(device)

    layers = [linear(F, D), linear(D, D), linear(H, D), linear(D, H)]
    skipped = (torch.arange(L)[:, None, None] + torch.arange(2)[:, None] + torch.arange(case.B)) % 3 == 1
    return Inputs(
        x=normal(case.B, case.N, D).to(device),
        keep=torch.where(skipped, 0.0, 1.25).to(device),
        weights=BlockWeights(*(tensor for pair in layers for tensor in pair)),
        dout=normal(case.B, plan.taken, D).to(device),
    )


def results(
    blocks: Callable[[Tensor, Tensor, BlockWeights, BlockPlan], Tensor],
    inputs: Inputs,
    plan: BlockPlan,
    *,
    exact: bool = False,
) -> list[Tensor]:
    """The output and every gradient in the order of `NAMES`; `exact` computes in float64."""
    leaves = [(x.double() if exact else x).detach().clone().requires_grad_() for x in inputs.leaves]
    out = blocks(leaves[0], inputs.keep, BlockWeights(*leaves[1:]), plan)
    return [out.detach(), *torch.autograd.grad(out, leaves, inputs.dout.to(out.dtype))]


def relative_errors(found: list[Tensor], wanted: list[Tensor]) -> dict[str, float]:
    """Norm of the difference over norm of the wanted, by name."""
    pairs = zip(NAMES, found, wanted, strict=True)
    return {name: float((a.double() - b).norm() / b.norm()) for name, a, b in pairs}


def assert_small(errors: dict[str, float], bound: float) -> None:
    """All errors are below the bound, and none is NaN."""
    assert all(error < bound for error in errors.values()), errors
