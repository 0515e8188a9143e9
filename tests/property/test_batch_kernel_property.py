"""What must hold for batches of any size; the kernel runs in Triton's interpreter."""

import torch
from batch_cases import Form, assert_equals_the_twin
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter import in_interpreter

FORMS = st.builds(
    Form,
    S=st.integers(1, 3),
    B=st.integers(1, 5),
    H=st.integers(1, 40),
    W=st.integers(1, 40),
    C=st.integers(1, 4),
    K=st.integers(2, 130),
    smoothing=st.sampled_from([0.0, 0.1, 1.0]),
)


@in_interpreter
@settings(max_examples=30, deadline=None, derandomize=True)
@given(FORMS, st.integers(0, 2**31))
def test_the_kernel_equals_the_twin(form, seed):
    assert_equals_the_twin(form, torch.float32, atol=1e-6, seed=seed)
