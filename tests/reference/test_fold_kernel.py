"""Folding a norm into the linear layer behind it: against the two layers themselves, and the kernels against float64.

The tests marked `in_interpreter` are run by `test_blocks_kernel`, in a process of their own.
"""

import pytest
import torch
from fold_cases import FOLD_CASES, FoldCase, assert_folds_as_float64, parts
from interpreter import in_interpreter, natively
from torch.nn import functional as F

from pocketvit.kernels.fold import fold_norm

SMALL = [case for case in FOLD_CASES if case.L * case.F * case.D <= 20_000]
OFFSET = pytest.mark.parametrize("with_offset", [True, False], ids=["layernorm", "rmsnorm"])


@natively
@OFFSET
def test_one_layer_computes_what_two_did(with_offset):
    tensors = [tensor.double() for tensor in parts(FoldCase(1, 40, 32), with_offset)]
    w, b, factor, *offset = (tensor[0] for tensor in tensors)
    x = torch.randn(7, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    normed = F.layer_norm(x, (32,), factor, *offset) if offset else F.rms_norm(x, (32,), factor, eps=1e-5)
    plain = F.layer_norm(x, (32,)) if offset else F.rms_norm(x, (32,), eps=1e-5)
    merged = fold_norm(*tensors, *[None] * (4 - len(tensors)))
    torch.testing.assert_close(F.linear(plain, *(t[0] for t in merged)), F.linear(normed, w, b), rtol=0, atol=1e-12)


@in_interpreter
@OFFSET
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_kernels(case, with_offset):
    assert_folds_as_float64(parts(case, with_offset))
