"""The stem's kernels against float64; within a whole model, `test_head_kernel` has them.

The tests marked `in_interpreter` are run by `test_kernels_in_the_interpreter`, in a process of their own.
"""

import pytest
import torch
from interpreter import assert_green_in_the_interpreter, in_interpreter, natively
from stem_cases import STEM_CASES, assert_stem_is_as_float64

from pocketvit.kernels.launch import needs_gpu
from pocketvit.kernels.stem import supported


@natively
@pytest.mark.long
def test_kernels_in_the_interpreter():
    assert_green_in_the_interpreter(
        "reference/test_stem_kernel.py", "reference/test_head_kernel.py", "reference/test_gradient_memory.py"
    )


@in_interpreter
@pytest.mark.parametrize("case", STEM_CASES, ids=str)
def test_values_and_gradients(case):
    assert_stem_is_as_float64(case, 1e-5)


@in_interpreter
def test_what_is_covered():
    cpu = torch.device("cpu")
    assert supported(cpu, torch.Size((192, 3, 8, 8))) is None
    assert "numbers" in supported(cpu, torch.Size((192, 3, 16, 16)))
    assert "width" in supported(cpu, torch.Size((40, 3, 4, 4)))


@natively
def test_only_a_gpu_has_kernels():
    cpu = torch.device("cpu")
    assert supported(cpu, torch.Size((192, 3, 4, 4))) == needs_gpu(cpu) is not None
