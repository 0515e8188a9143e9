"""The kernel that makes a batch, against its twin, whose formulas have tests of their own.

The tests marked `in_interpreter` are run by `test_augment_kernel`, in a process of their own.
"""

import pytest
import torch
from batch_cases import FORMS, assert_equals_the_twin
from interpreter import in_interpreter


@in_interpreter
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_kernel_equals_the_twin(form):
    assert_equals_the_twin(form, torch.float32, atol=1e-6)
