"""Images and stems for the tests of the stem's kernels.

Shapes: B images, C channels, H W pixels, D width.
"""

from typing import NamedTuple

import torch
from block_cases import assert_small
from poison import poisoned_memory
from torch import Tensor

from pocketvit.kernels.stem import StemPlan, StemWeights, stem, stem_reference


class StemCase(NamedTuple):
    """The sizes of a stem."""

    B: int
    H: int
    W: int
    patch: int
    stride: int
    D: int
    num_cls: int = 1
    num_registers: int = 0
    positions: str = "learned"
    C: int = 3

    @property
    def plan(self) -> StemPlan:
        grid = ((self.H - self.patch) // self.stride + 1, (self.W - self.patch) // self.stride + 1)
        return StemPlan(self.stride, grid)


STEM_CASES = [
    StemCase(5, 32, 32, 4, 4, 192),
    StemCase(2, 32, 32, 8, 4, 192, num_cls=0),
    StemCase(131, 8, 12, 4, 4, 64, num_cls=2, num_registers=3),
    StemCase(1, 8, 8, 2, 2, 32, num_registers=1, positions="none"),
    StemCase(65, 16, 8, 8, 4, 96, positions="fixed"),
    StemCase(3, 9, 9, 9, 9, 32, num_cls=0, num_registers=2),
    StemCase(7, 5, 7, 1, 2, 32, C=1),
    StemCase(64, 8, 8, 4, 4, 32, C=16, num_cls=3, positions="none"),
]


class StemInputs(NamedTuple):
    """What a stem is called with, and the gradient of what it returns."""

    images: Tensor
    weights: StemWeights
    dout: Tensor


def stem_inputs(case: StemCase, device: str = "cpu", dtype: torch.dtype = torch.float32, seed: int = 0) -> StemInputs:
    """Pixels, filters and gradients that are exact in `dtype`."""
    generator, (rows, columns) = torch.Generator().manual_seed(seed), case.plan.grid

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    tokens = case.num_cls + case.num_registers + rows * columns
    filters = normal(case.D, case.C, case.patch, case.patch) / (case.C * case.patch**2) ** 0.5
    special = [normal(1, count, case.D) if count else None for count in (case.num_cls, case.num_registers)]
    positions = None if case.positions == "none" else normal(1, tokens, case.D)
    return StemInputs(
        images=normal(case.B, case.C, case.H, case.W).to(dtype),
        weights=StemWeights(filters.to(dtype).float(), normal(case.D), *special, positions),
        dout=normal(case.B, tokens, case.D).to(dtype),
    )


def stem_results(inputs: StemInputs, case: StemCase, *, exact: bool = False) -> dict[str, Tensor]:
    """The tokens and the gradient of every trained tensor; `exact` is the reference in float64."""
    trained = {name: t for name, t in inputs.weights._asdict().items() if t is not None}
    if case.positions == "fixed":
        del trained["positions"]
    leaves = {name: (t.double() if exact else t).detach().clone().requires_grad_() for name, t in trained.items()}
    weights = inputs.weights._replace(**leaves)
    if exact:
        images = inputs.images.double()
        weights = StemWeights(*(None if t is None else t.double() for t in weights))
        out = stem_reference(images, weights, case.plan)
    else:
        out = stem(inputs.images, weights, case.plan)
    gradients = torch.autograd.grad(out, list(leaves.values()), inputs.dout.to(out.dtype))
    return {"out": out.detach()} | dict(zip(leaves, gradients, strict=True))


def assert_stem_is_as_float64(case: StemCase, bound: float, device: str = "cpu", dtype: torch.dtype = torch.float32):
    """The tokens and gradients of the kernels, on poisoned memory."""
    inputs = stem_inputs(case, device, dtype)
    with poisoned_memory(device):
        found = stem_results(inputs, case)
    wanted = stem_results(inputs, case, exact=True)
    assert found.keys() == wanted.keys() and found["out"].dtype == dtype
    assert_small({name: float((found[name].double() - t).norm() / t.norm()) for name, t in wanted.items()}, bound)
