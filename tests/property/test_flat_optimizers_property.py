"""What must hold for the flat optimizers on any number of parameters; the kernels run in Triton's interpreter."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter import in_interpreter
from optim_cases import PLAIN, assert_equals_float64


@in_interpreter
@pytest.mark.parametrize("name", PLAIN)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    st.integers(1, 5000) | st.sampled_from([1023, 1024, 1025, 2048]),
    st.tuples(st.sampled_from([0.0, 0.5, 0.9]), st.sampled_from([0.9, 0.99, 0.999])),
    st.sampled_from([0.0, 0.01, 0.5]),
    st.integers(0, 2**31),
)
def test_equals_the_plain_one_in_float64(name, size, betas, weight_decay, seed):
    assert_equals_float64(name, size, betas, weight_decay, seed=seed)
