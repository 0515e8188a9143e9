"""Folding a norm into the linear layer behind it: against the two layers themselves, and the kernels against float64.

The tests marked `in_interpreter` are run by `test_blocks_kernel`, in a process of their own.
"""

import pytest
import torch
from interpreter import in_interpreter, natively
from torch import Tensor
from torch.nn import functional as F

from pocketvit.kernels.fold import fold_norm

SIZES = [(1, 32, 32), (3, 40, 32), (2, 72, 96), (2, 33, 192), (1, 5, 256)]
"""Layers, outputs, inputs; the kernels take 32 outputs at a time."""
OFFSET = pytest.mark.parametrize("with_offset", [True, False], ids=["layernorm", "rmsnorm"])


def parts(L: int, num_outputs: int, width: int, with_offset: bool) -> list[Tensor]:
    """w (L, F, D), b (L, F), factor (L, D) and perhaps offset (L, D)."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(L, num_outputs, width), (L, num_outputs), (L, width), (L, width)]
    return [torch.randn(shape, generator=generator) for shape in shapes[: 4 if with_offset else 3]]


def folded(tensors: list[Tensor]) -> list[Tensor]:
    """W' and b', and the gradients of all parts for random ones of theirs."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    outputs = fold_norm(*leaves, *[None] * (4 - len(leaves)))
    generator = torch.Generator().manual_seed(1)
    douts = [torch.randn(out.shape, generator=generator).to(out.dtype) for out in outputs]
    return [*(out.detach() for out in outputs), *torch.autograd.grad(outputs, leaves, douts)]


def assert_close_to_exact(tensors: list[Tensor]) -> None:
    """Float64 takes the plain formulas."""
    for found, exact in zip(folded(tensors), folded([tensor.double() for tensor in tensors]), strict=True):
        assert (found.double() - exact).norm() < 1e-5 * exact.norm()


@natively
@OFFSET
def test_one_layer_computes_what_two_did(with_offset):
    tensors = [tensor.double() for tensor in parts(1, 40, 32, with_offset)]
    w, b, factor, *offset = (tensor[0] for tensor in tensors)
    x = torch.randn(7, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    normed = F.layer_norm(x, (32,), factor, *offset) if offset else F.rms_norm(x, (32,), factor, eps=1e-5)
    plain = F.layer_norm(x, (32,)) if offset else F.rms_norm(x, (32,), eps=1e-5)
    merged = fold_norm(*tensors, *[None] * (4 - len(tensors)))
    torch.testing.assert_close(F.linear(plain, *(t[0] for t in merged)), F.linear(normed, w, b), rtol=0, atol=1e-12)


@in_interpreter
@OFFSET
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_kernels(size, with_offset, poisoned):
    assert_close_to_exact(parts(*size, with_offset))


@in_interpreter
def test_layers_with_memory_between_them_are_read_in_place(poisoned):
    """As views of the optimizer's flat memory have it."""
    assert_close_to_exact([torch.cat([t, t + 1], dim=1)[:, : t.shape[1]] for t in parts(3, 40, 32, True)])
