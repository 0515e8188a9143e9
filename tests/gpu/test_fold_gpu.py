"""The folding kernels on the GPU against float64."""

import pytest
import torch
from fold_cases import FOLD_CASES, assert_folds_as_float64, folded, parts

pytestmark = pytest.mark.gpu

OFFSET = pytest.mark.parametrize("with_offset", [True, False], ids=["layernorm", "rmsnorm"])


@OFFSET
@pytest.mark.parametrize("case", FOLD_CASES, ids=str)
def test_values_and_gradients(case, with_offset):
    assert_folds_as_float64(parts(case, with_offset, "cuda"))


@OFFSET
def test_the_same_inputs_give_the_same_bits(with_offset):
    tensors = parts(FOLD_CASES[15], with_offset, "cuda")
    first, second = folded(tensors), folded(tensors)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
