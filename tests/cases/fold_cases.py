"""Linear layers with norms in front of them, for the tests of the folding kernels.

Shapes: L layers, F outputs, D inputs.
"""

from math import prod
from typing import NamedTuple

import torch
from block_cases import assert_small
from poison import poisoned_memory
from torch import Tensor

from pocketvit.kernels.fold import fold_norm

NAMES = ("w_out", "b_out", "dw", "db", "dfactor", "doffset")


class FoldCase(NamedTuple):
    """The sizes of a stack of linear layers, and how it lies in memory."""

    L: int
    F: int
    D: int
    gap: int | None = None
    """Numbers between the tensors of all kinds and layers in one piece of memory; None = each kind is contiguous."""


FOLD_CASES = [
    FoldCase(1, 32, 32),
    FoldCase(3, 40, 32),
    FoldCase(3, 40, 32, 0),
    FoldCase(2, 1, 32, 1),
    FoldCase(4, 128, 64, 16),
    FoldCase(1, 127, 64, 3),
    FoldCase(2, 129, 64, 16),
    FoldCase(2, 72, 96),
    FoldCase(6, 288, 96, 16),
    FoldCase(7, 7, 96, 7),
    FoldCase(2, 257, 128, 0),
    FoldCase(1, 640, 128, 5),
    FoldCase(3, 160, 160),
    FoldCase(2, 320, 160, 48),
    FoldCase(9, 576, 192),
    FoldCase(9, 384, 192, 16),
    FoldCase(2, 33, 192, 2),
    FoldCase(1, 31, 224, 16),
    FoldCase(1, 5, 256),
    FoldCase(2, 300, 256, 9),
]
"""The kernels take 32 and 128 outputs at a time."""


def parts(case: FoldCase, with_offset: bool, device: str = "cpu", seed: int = 0) -> list[Tensor]:
    """w (L, F, D), b (L, F), factor (L, D) and perhaps offset (L, D), NaN between them, as an optimizer's flat memory."""
    L, F, D, gap = case
    generator = torch.Generator().manual_seed(seed)
    shapes = [(F, D), (F,), (D,), (D,)][: 4 if with_offset else 3]
    between = gap or 0
    memory = torch.full((L, sum(prod(shape) + between for shape in shapes)), torch.nan, device=device)
    tensors, start = [], 0
    for shape in shapes:
        tensor = memory[:, start : start + prod(shape)].view(L, *shape)
        tensor.copy_(torch.randn(L, *shape, generator=generator))
        tensors.append(tensor.contiguous() if gap is None else tensor)
        start += prod(shape) + between
    return tensors


def folded(tensors: list[Tensor]) -> list[Tensor]:
    """W' and b', and the gradients of all parts for random ones of theirs, in the order of `NAMES`."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    generator = torch.Generator().manual_seed(1)
    douts = [torch.randn(x.shape, generator=generator).to(x) for x in tensors[:2]]
    outputs = fold_norm(*leaves, *[None] * (4 - len(leaves)))
    assert (outputs[0].grad_fn.name() == "FoldedNormBackward") == (leaves[0].dtype == torch.float32)
    return [*(out.detach() for out in outputs), *torch.autograd.grad(outputs, leaves, douts)]


def assert_folds_as_float64(tensors: list[Tensor]) -> None:
    """The outputs and gradients of the kernels, which float32 takes, are those of the plain formulas in float64."""
    with poisoned_memory(tensors[0].device.type):
        found = folded(tensors)
    exact = folded([tensor.double() for tensor in tensors])
    pairs = zip(NAMES, found, exact, strict=False)  # no gradient of an offset that is not there
    assert_small({name: float((a.double() - b).norm() / b.norm()) for name, a, b in pairs}, 1e-5)
