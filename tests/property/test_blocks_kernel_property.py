"""What must hold for a stack of blocks of any shape; the kernels' part runs in Triton's interpreter, in float32."""

from functools import partial

import pytest
import torch
from block_cases import Case, assert_small, random_inputs, relative_errors, results
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter import assert_green_in_the_interpreter, in_interpreter, natively
from poison import poisoned_memory

from pocketvit.kernels.block_weights import chunk
from pocketvit.kernels.blocks import MAX_WIDTH, blocks_reference, run_blocks, supported


@st.composite
def supported_cases(
    draw: st.DrawFn, max_width: int, max_ratio: int, max_tokens: int, max_heads: int | None = None
) -> Case:
    """Blocks that the kernels cover, two images at least; `max_heads` over all images and layers."""
    width = draw(st.integers(1, max_width // 32)) * 32
    num_layers = draw(st.integers(1, 2))
    choices = [a for a in range(1, width // 8 + 1) if width % a == 0 and width // a in range(8, 65, 8)]
    most = 5 if max_heads is None else min(5, max_heads // (num_layers * choices[0]))
    B = draw(st.integers(2, most))
    num_heads = draw(st.sampled_from([a for a in choices if max_heads is None or a * B * num_layers <= max_heads]))
    N = draw(st.integers(2, max_tokens))
    return Case(
        B=B,
        N=N,
        width=width,
        num_heads=num_heads,
        mlp_ratio=draw(st.integers(1, max_ratio)),
        taken=draw(st.sampled_from([1, N]) | st.integers(1, N)),
        num_layers=num_layers,
        num_kv_heads=draw(st.sampled_from([a for a in range(1, num_heads + 1) if num_heads % a == 0])),
        centred=draw(st.booleans()),
        tanh=draw(st.booleans()),
    )


def assert_equals_float64(case: Case, seed: int) -> None:
    """The kernels' output and gradients are the twin's in float64."""
    inputs = random_inputs(case, seed=seed)
    with poisoned_memory():
        found = results(partial(run_blocks, kernels="fused"), inputs, case.plan)
    assert_small(relative_errors(found, results(blocks_reference, inputs, case.plan, exact=True)), 1e-5)


@in_interpreter
@settings(max_examples=5, deadline=None, derandomize=True)
@given(supported_cases(max_width=128, max_ratio=2, max_tokens=70, max_heads=8), st.integers(0, 2**31))
def test_kernels_equal_the_twin_in_float64(case, seed):
    assert_equals_float64(case, seed)


@in_interpreter
@pytest.mark.nightly
@settings(max_examples=24, deadline=None, print_blob=True)
@given(supported_cases(max_width=128, max_ratio=4, max_tokens=130, max_heads=32), st.integers(0, 2**31))
def test_other_cases_every_time(case, seed):
    assert_equals_float64(case, seed)


@natively
@pytest.mark.nightly
def test_other_cases_in_the_interpreter():
    assert_green_in_the_interpreter("property/test_blocks_kernel_property.py", marks="long and not gpu")


@in_interpreter
@given(supported_cases(max_width=MAX_WIDTH, max_ratio=8, max_tokens=257))
def test_launches_divide_what_they_walk_over(case):
    """A tile's sides are powers of two, and no columns are left over, because the kernels mask none."""
    from pocketvit.kernels import blocks_ops as ops

    plan = case.plan
    assert supported(torch.device("cpu"), torch.float32, case.N, plan) is None
    F = (plan.num_heads + 2 * plan.num_kv_heads) * plan.head_dim
    wider = ops.Launches(norm_linear=F, block_tail=plan.hidden_width, mlp_backward=plan.hidden_width,
                         norm_linear_backward=F)  # fmt: skip
    assert plan.width % chunk(plan.width) == 0
    tiles = [chunk(plan.width), ops.WEIGHT_TILE["OUT"], ops.WEIGHT_TILE["TOKENS"]]
    for launch, size in zip(ops.launches(plan.width, case.B * case.N), wider, strict=True):
        options = launch.options(size)
        assert size % options["COLUMNS"] == 0 and options["COLUMNS"] <= launch.columns
        tiles += [options["ROWS"], options["COLUMNS"]]
    assert all(side >= 16 and side & (side - 1) == 0 for side in tiles), tiles


@natively
@settings(max_examples=15, deadline=None, derandomize=True)
@given(supported_cases(max_width=64, max_ratio=2, max_tokens=30), st.randoms(use_true_random=False))
def test_images_do_not_see_each_other(case, random):
    inputs = random_inputs(case)
    order = random.sample(range(case.B), case.B)
    out = run_blocks(inputs.x, inputs.keep, inputs.weights, case.plan)
    found = run_blocks(inputs.x[order], inputs.keep[:, :, order], inputs.weights, case.plan)
    torch.testing.assert_close(found, out[order], rtol=1e-4, atol=1e-4)


@natively
@settings(max_examples=15, deadline=None, derandomize=True)
@given(supported_cases(max_width=64, max_ratio=2, max_tokens=30))
def test_fewer_tokens_are_the_first_of_all(case):
    inputs = random_inputs(case)
    some, every = (
        run_blocks(inputs.x, inputs.keep, inputs.weights, case._replace(taken=taken).plan)
        for taken in (case.taken, case.N)
    )
    torch.testing.assert_close(some, every[:, : case.taken], rtol=1e-4, atol=1e-4)
