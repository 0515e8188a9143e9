"""What must hold for folding of any shape and memory; the kernels run in Triton's interpreter."""

from fold_cases import FoldCase, assert_folds_as_float64, parts
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter import in_interpreter

CASES = st.builds(
    FoldCase,
    L=st.integers(1, 3),
    F=st.integers(1, 70) | st.sampled_from([127, 128, 129]),
    D=st.integers(1, 8).map(lambda chunks: 32 * chunks),
    gap=st.none() | st.integers(0, 20),
)


@in_interpreter
@settings(max_examples=15, deadline=None, derandomize=True)
@given(CASES, st.booleans(), st.integers(0, 2**31))
def test_kernels_equal_the_formulas_in_float64(case, with_offset, seed):
    assert_folds_as_float64(parts(case, with_offset, seed=seed))
