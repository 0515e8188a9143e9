"""What must hold for attention of any shape; the kernels' part runs in Triton's interpreter, in float32."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter import in_interpreter, natively
from torch import Tensor

from pocketvit.kernels.attention import attention


@st.composite
def attention_inputs(draw: st.DrawFn) -> list[Tensor]:
    """q, k and v of any supported shape, each key head shared by one to three query heads."""
    heads, group, batch = draw(st.sampled_from([(1, 1, 1), (2, 1, 1), (1, 1, 2), (1, 3, 1), (2, 2, 1)]))
    tokens = draw(st.integers(2, 100) | st.sampled_from([128, 129, 144, 145, 256, 257]))
    head_dim = draw(st.sampled_from([8, 16, 24, 32, 48, 64]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return [torch.randn(batch, a, tokens, head_dim, generator=generator) for a in (heads * group, heads, heads)]


@in_interpreter
@settings(max_examples=8, deadline=None, derandomize=True)
@given(attention_inputs(), st.floats(0.05, 2.0))
def test_kernels_equal_the_twin_in_float64(tensors, scale):
    ours = [x.requires_grad_() for x in tensors]
    exact = [x.detach().double().requires_grad_() for x in tensors]
    out = attention(*ours, scale=scale, kernels="fused")
    expected = attention(*exact, scale=scale, kernels="reference")
    dout = torch.linspace(-1, 2, out.numel()).reshape(out.shape)
    found = (out, *torch.autograd.grad(out, ours, dout))
    wanted = (expected, *torch.autograd.grad(expected, exact, dout.double()))
    for a, b in zip(found, wanted, strict=True):
        assert (a.double() - b).norm() < 1e-5 * b.norm()


@natively
@settings(max_examples=25, deadline=None, derandomize=True)
@given(attention_inputs(), st.randoms(use_true_random=False))
def test_the_order_of_the_keys_does_not_matter(tensors, random):
    q, k, v = tensors
    order = random.sample(range(k.shape[2]), k.shape[2])
    torch.testing.assert_close(attention(q, k[:, :, order], v[:, :, order]), attention(q, k, v), rtol=1e-4, atol=1e-5)


@natively
@settings(max_examples=25, deadline=None, derandomize=True)
@given(attention_inputs())
def test_outputs_lie_between_the_values(tensors):
    q, k, v = tensors
    v = v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)  # (B, A, N, E)
    out = attention(*tensors)
    assert (out <= v.amax(2, keepdim=True) + 1e-5).all()
    assert (out >= v.amin(2, keepdim=True) - 1e-5).all()


@natively
@pytest.mark.parametrize("direction", ["forward", "backward"])
@given(st.integers(1, 257), st.integers(2, 8).map(lambda eighths: 8 * eighths))
def test_tiles_cover_the_sequence_and_the_head(direction, tokens, head_dim):
    ops = pytest.importorskip("pocketvit.kernels.attention_ops", reason="needs Triton")
    tiles = getattr(ops, f"{direction}_tiles")(tokens, head_dim)
    assert tiles.MAIN < tokens <= tiles.MAIN + tiles.TAIL or tokens <= tiles.MAIN == 16
    assert tiles.COLUMNS >= head_dim
    assert tiles.REST == 0 or tokens % tiles.ROWS <= tiles.REST < tiles.ROWS
    assert all(size & (size - 1) == 0 for size in (*tiles[:5], tiles.num_warps)), "powers of two, or none"
