"""Attention against an explicit softmax in float64: the twin as it is, the kernels in Triton's interpreter.

Triton reads TRITON_INTERPRET when it is first imported, so the tests marked `in_interpreter` are skipped here and run
by `test_kernels_in_the_interpreter` in a process of their own.
"""

import pytest
import torch
from interpreter import assert_green_in_the_interpreter, in_interpreter, natively
from torch import Tensor

from pocketvit.errors import InputError
from pocketvit.kernels.attention import attention, attention_qkv, supported

SHAPES = [
    (2, 1, 1, 65, 16),
    (2, 2, 2, 65, 8),
    (1, 4, 2, 17, 8),
    (1, 2, 2, 66, 16),
    (1, 1, 1, 68, 64),
    (1, 1, 1, 80, 32),
    (1, 1, 1, 81, 16),
    (1, 1, 1, 64, 16),
    (1, 2, 2, 50, 32),
    (3, 2, 2, 17, 64),
    (1, 2, 2, 5, 16),
    (1, 1, 1, 130, 48),
    (1, 1, 1, 150, 32),
    (1, 1, 1, 257, 16),
    (1, 1, 1, 257, 64),
    (2, 2, 1, 65, 16),
    (1, 6, 2, 33, 24),
    (1, 3, 1, 65, 40),
]
"""Batch, query heads, key heads, tokens, head dim."""


def random_tensor(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(B: int, A: int, A_kv: int, N: int, E: int) -> list[Tensor]:
    """q, k and v, (B, heads, N, E)."""
    return [random_tensor(B, heads, N, E, seed=i) for i, heads in enumerate((A, A_kv, A_kv))]


def explicit(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Softmax attention spelled out, head by head."""
    group = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))  # (B, A, N, E)
    p = torch.softmax(torch.einsum("band,bamd->banm", q, k) * scale, dim=-1)  # (B, A, N, N)
    return torch.einsum("banm,bamd->band", p, v)


def relative_error(ours: Tensor, exact: Tensor) -> float:
    """Norm of the difference over norm of the exact; what is exactly zero is measured as it is."""
    return float((ours.double() - exact).detach().norm() / (exact.detach().norm() or 1.0))


def errors(tensors: list[Tensor], scale: float | None, kernels: str) -> dict[str, float]:
    """The relative errors of the outputs and of every gradient."""
    ours = [x.detach().requires_grad_() for x in tensors]
    exact = [x.detach().double().requires_grad_() for x in tensors]
    out = attention(*ours, scale=scale, kernels=kernels)
    expected = explicit(*exact, scale or tensors[0].shape[3] ** -0.5)
    dout = random_tensor(*expected.shape, seed=9)
    grads = torch.autograd.grad(out, ours, dout)
    expected_grads = torch.autograd.grad(expected, exact, dout.double())
    pairs = zip(("out", "dq", "dk", "dv"), (out, *grads), (expected, *expected_grads), strict=True)
    return {name: relative_error(a, b) for name, a, b in pairs}


def assert_small(found: dict[str, float], bound: float) -> None:
    assert all(error < bound for error in found.values()), found


@natively
@pytest.mark.long
def test_kernels_in_the_interpreter():
    assert_green_in_the_interpreter("reference/test_attention_kernel.py", "property/test_attention_kernel_property.py")


@natively
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_twin(shape):
    assert_small(errors(inputs(*shape), None, "reference"), 1e-5)


@in_interpreter
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fused(shape, poisoned):
    assert_small(errors(inputs(*shape), None, "fused"), 1e-5)


@in_interpreter
@pytest.mark.parametrize("rows", [16, 32, 64])
def test_any_tile_of_queries_gives_the_same(rows, poisoned):
    from pocketvit.kernels import attention_ops as ops
    from pocketvit.kernels.attention_triton import attention_backward_kernel, attention_kernel

    q, k, v = inputs(1, 2, 1, 65, 16)
    dout = random_tensor(1, 65, 2, 16, seed=9)
    tiles = ops.cut(65, columns=32, rows=rows, num_warps=4)
    assert (tiles.REST > 0) == (rows > 16)
    out, lse = ops.launch_forward(attention_kernel, q, k, v, 0.25, tiles)
    grad = ops.launch_backward(attention_backward_kernel, q, k, v, dout, lse, 0.25, tiles)
    usual_out, usual_lse = ops.launch_forward(attention_kernel, q, k, v, 0.25)
    usual_grad = ops.launch_backward(attention_backward_kernel, q, k, v, dout, usual_lse, 0.25)
    torch.testing.assert_close((out, lse, grad), (usual_out, usual_lse, usual_grad))


@in_interpreter
def test_strided_inputs_are_read_in_place(poisoned):
    packed = random_tensor(1, 65, 5, 16)  # three query heads, a key head and a value head
    q, k, v = packed.transpose(1, 2).split((3, 1, 1), dim=1)
    assert_small(errors([q, k, v], None, "fused"), 1e-5)
    joined = attention(q, k, v, kernels="fused").transpose(1, 2)
    assert joined.is_contiguous(), "joining the heads must move nothing"


@in_interpreter
def test_large_logits_stay_finite(poisoned):
    """Scores of 16,000, where float32 leaves P three digits, and of 180,000, where only its range is left."""
    q, k, v = inputs(1, 2, 2, 65, 16)
    assert_small(errors([30 * q, 30 * k, v], 1.0, "fused"), 1e-3)
    assert_small(errors([100 * q, 100 * k, v], 1.0, "fused"), 1.0)


@in_interpreter
def test_one_token_gets_its_own_value(poisoned):
    """Its softmax is constant, so that two gradients are zero and have no relative error."""
    q, k, v = (x.requires_grad_() for x in inputs(1, 1, 1, 1, 16))
    out = attention(q, k, v, kernels="fused")
    torch.testing.assert_close(out, v)
    dq, dk, dv = torch.autograd.grad(out, (q, k, v), torch.ones_like(out))
    torch.testing.assert_close((dq, dk, dv), (torch.zeros_like(q), torch.zeros_like(k), torch.ones_like(v)))


@in_interpreter
@pytest.mark.parametrize("scale", [0.01, 1.0])
def test_scale(scale):
    assert_small(errors(inputs(1, 2, 1, 37, 16), scale, "fused"), 1e-5)


@in_interpreter
def test_packed_gradient(poisoned):
    qkv = random_tensor(2, 17, 3, 2, 16).requires_grad_()
    dout = random_tensor(2, 17, 32, seed=9)
    fused, twin = (
        torch.autograd.grad(attention_qkv(qkv, kernels=kind), qkv, dout)[0] for kind in ("fused", "reference")
    )
    torch.testing.assert_close(fused, twin)
    assert fused.is_contiguous()


@in_interpreter
def test_gradient_of_a_broadcast_loss():
    """The gradient of a sum has stride 0 everywhere."""
    tensors = [x.requires_grad_() for x in inputs(1, 2, 2, 17, 16)]
    fused, twin = (
        torch.autograd.grad(attention(*tensors, kernels=kind).sum(), tensors) for kind in ("fused", "reference")
    )
    torch.testing.assert_close(fused, twin)


@in_interpreter
def test_operators_are_well_formed():
    from pocketvit.kernels import attention_operators as operators

    q, k, v = (x.requires_grad_() for x in inputs(1, 2, 1, 17, 16))
    checks = ("test_schema", "test_autograd_registration")
    torch.library.opcheck(operators.attention_op, (q, k, v, 0.25), test_utils=checks)
    torch.library.opcheck(
        operators.attention_qkv_op, (random_tensor(1, 17, 3, 2, 16).requires_grad_(), 0.25), test_utils=checks
    )


@natively
def test_packed_twin_is_the_twin():
    qkv = random_tensor(2, 65, 3, 2, 16)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    expected = explicit(q.double(), k.double(), v.double(), 0.25)  # (B, A, N, E)
    found = attention_qkv(qkv, kernels="reference")  # (B, N, A·E)
    assert relative_error(found, expected.transpose(1, 2).flatten(2)) < 1e-5


@natively
def test_compiles_without_a_graph_break():
    qkv = random_tensor(2, 65, 3, 2, 16).requires_grad_()
    compiled = torch.compile(attention_qkv, fullgraph=True, backend="aot_eager")
    dout = random_tensor(2, 65, 32, seed=9)
    for_compiled, for_eager = (torch.autograd.grad(f(qkv), qkv, dout)[0] for f in (compiled, attention_qkv))
    torch.testing.assert_close(for_compiled, for_eager)


@natively
def test_the_cpu_runs_the_twin_and_says_so():
    q, k, v = inputs(1, 2, 2, 17, 16)
    assert "not on an NVIDIA GPU" in supported(q, k, v)
    torch.testing.assert_close(attention(q, k, v), attention(q, k, v, kernels="reference"))
    with pytest.raises(InputError, match="kernels='fused' .* not on an NVIDIA GPU"):
        attention(q, k, v, kernels="fused")


@in_interpreter
@pytest.mark.parametrize(
    ("shape", "reason"),
    [((1, 1, 1, 258, 16), "258 tokens"), ((1, 1, 1, 9, 20), "head dim of 20"), ((1, 1, 1, 9, 128), "head dim of 128")],
)
def test_what_is_not_supported_says_why(shape, reason):
    assert reason in supported(*inputs(*shape))
    assert_small(errors(inputs(*shape), None, "auto"), 1e-5)


@in_interpreter
def test_unsupported_memory_and_dtypes():
    q, k, v = inputs(1, 1, 1, 16, 16)
    assert "memory" in supported(q.mT, k, v)
    assert "dtypes" in supported(q, k.half(), v)
    assert "differ in number" in supported(q, k[:, :, :5], v[:, :, :5])


@natively
@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((1, 3, 9, 16), (1, 2, 9, 16), (1, 2, 9, 16)), {}, "3 query heads: must be a multiple of the 2 key heads"),
        (((1, 2, 9, 16), (1, 2, 9, 16), (1, 2, 8, 16)), {}, "must have the same shape"),
        (((2, 9, 16), (2, 9, 16), (2, 9, 16)), {}, "must be .batch, heads, tokens, head dim."),
        (((1, 2, 9, 16),) * 3, {"scale": 0.0}, "scale=0.0: must be greater than 0"),
        (((1, 2, 9, 16),) * 3, {"kernels": "fast"}, "kernels='fast': must be one of auto, fused, reference"),
    ],
)
def test_bad_inputs(shapes, options, message):
    with pytest.raises(InputError, match=message):
        attention(*(torch.zeros(shape) for shape in shapes), **options)


@natively
def test_bad_packing():
    with pytest.raises(InputError, match=r"must be \(batch, tokens, 3, heads, head dim\)"):
        attention_qkv(torch.zeros(2, 65, 96))
