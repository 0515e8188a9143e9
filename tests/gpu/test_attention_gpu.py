"""The attention kernels on the GPU against float64, and inside `torch.compile` and CUDA graphs."""

import pytest
import torch
from poison import poisoned_memory
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from pocketvit.kernels.attention import attention, attention_qkv, supported

pytestmark = pytest.mark.gpu

SHAPES = [
    (4, 12, 12, 65, 16),
    (4, 12, 12, 65, 8),
    (3, 12, 4, 66, 8),
    (4, 3, 3, 65, 64),
    (3, 6, 6, 65, 32),
    (4, 12, 12, 66, 16),
    (2, 3, 3, 68, 64),
    (5, 12, 12, 64, 16),
    (2, 3, 3, 64, 64),
    (3, 5, 5, 17, 16),
    (2, 2, 2, 17, 64),
    (2, 3, 3, 5, 32),
    (3, 4, 4, 50, 16),
    (2, 3, 3, 50, 64),
    (2, 3, 3, 79, 48),
    (2, 4, 4, 97, 24),
    (2, 2, 2, 145, 16),
    (1, 3, 3, 197, 64),
    (2, 4, 4, 257, 16),
    (1, 3, 3, 257, 64),
    (4, 12, 4, 65, 16),
    (3, 12, 1, 65, 16),
    (2, 6, 2, 67, 40),
]
"""Batch, query heads, key heads, tokens, head dim."""


def random_tensor(*shape: int, seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to("cuda", dtype)


def inputs(B: int, A: int, A_kv: int, N: int, E: int, dtype: torch.dtype = torch.bfloat16) -> list[Tensor]:
    """q, k and v, (B, heads, N, E), as a model has them: views of one projection (B, N, heads, E)."""
    packed = random_tensor(B, N, A + 2 * A_kv, E, dtype=dtype)
    return list(packed.transpose(1, 2).split((A, A_kv, A_kv), dim=1))


def fused(tensors: list[Tensor], dout: Tensor, scale: float | None = None) -> list[Tensor]:
    """The outputs and the gradients of the fused kernels."""
    leaves = [x.detach().requires_grad_() for x in tensors]
    with poisoned_memory("cuda"):
        out = attention(*leaves, scale=scale, kernels="fused")
        return [out.detach(), *torch.autograd.grad(out, leaves, dout)]


def exact(tensors: list[Tensor], dout: Tensor, scale: float | None = None) -> list[Tensor]:
    """The same by an explicit softmax in float64."""
    leaves = [x.detach().double().requires_grad_() for x in tensors]
    q, k, v = leaves
    group = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))  # (B, A, N, E)
    p = torch.softmax(q @ k.mT * (scale or q.shape[3] ** -0.5), dim=-1)  # (B, A, N, N)
    out = p @ v
    return [out.detach(), *torch.autograd.grad(out, leaves, dout.double())]


def relative_errors(found: list[Tensor], wanted: list[Tensor]) -> dict[str, float]:
    pairs = zip(("out", "dq", "dk", "dv"), found, wanted, strict=True)
    return {name: float((a.double() - b).norm() / b.norm()) for name, a, b in pairs}


def assert_close_to_exact(tensors: list[Tensor]) -> None:
    dout = random_tensor(*tensors[0].shape, seed=1, dtype=tensors[0].dtype)
    errors = relative_errors(fused(tensors, dout), exact(tensors, dout))
    assert all(error < 1e-2 for error in errors.values()), errors


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients(shape):
    tensors = inputs(*shape)
    assert supported(*tensors) is None
    assert_close_to_exact(tensors)


def test_float16():
    assert_close_to_exact(inputs(2, 3, 3, 65, 16, dtype=torch.float16))


def test_strides_that_are_no_multiple_of_anything():
    q, k, v = (torch.nn.functional.pad(x, (0, 3))[..., :16] for x in inputs(2, 3, 3, 65, 16))
    assert q.stride(2) == 19
    assert_close_to_exact([q, k, v.transpose(0, 1).contiguous().transpose(0, 1)])


def test_a_large_batch_passes_32_bit_offsets():
    """The last image of a view whose images lie 2³¹ numbers apart, in memory that is never touched between."""
    B, A, N, E = 3, 1, 17, 16
    memory = torch.empty(2 * 2**31 + 3 * A * N * E, dtype=torch.bfloat16, device="cuda")
    far = memory.as_strided((B, N, 3 * A, E), (2**31, 3 * A * E, E, 1)).copy_(random_tensor(B, N, 3 * A, E))
    assert_close_to_exact(list(far.transpose(1, 2).split((A, A, A), dim=1)))


def test_large_logits():
    q, k, v = inputs(2, 3, 3, 65, 16)
    tensors, dout = [100 * q, 100 * k, v], random_tensor(2, 3, 65, 16, seed=1)
    found, wanted = fused(tensors, dout, 1.0), exact(tensors, dout, 1.0)
    assert all(x.isfinite().all() for x in found)
    errors = relative_errors(found, wanted)
    assert errors["out"] < 1e-2 and errors["dv"] < 1e-2, errors  # dq and dk are zero but for rounding


def test_runs_repeat_bit_for_bit():
    for shape in [(64, 12, 12, 65, 16), (64, 12, 4, 65, 16), (64, 3, 3, 65, 64)]:
        tensors = inputs(*shape)
        dout = random_tensor(*tensors[0].shape, seed=1)
        first, second = fused(tensors, dout), fused(tensors, dout)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def packed_step(f, qkv: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs (B, N, A·E) and the gradient of a packed projection."""
    out = f(qkv)
    return out.detach(), torch.autograd.grad(out, qkv, dout)[0]


@pytest.mark.parametrize(("heads", "head_dim"), [(12, 16), (3, 64)])
def test_packed_equals_unpacked(heads, head_dim):
    qkv = random_tensor(4, 65, 3, heads, head_dim).requires_grad_()
    dout = random_tensor(4, 65, heads * head_dim, seed=1)
    out, grad = packed_step(attention_qkv, qkv, dout)
    unpacked = list(qkv.detach().permute(2, 0, 3, 1, 4))  # each (B, A, N, E)
    expected = fused(unpacked, dout.unflatten(2, (heads, head_dim)).transpose(1, 2))
    assert torch.equal(out, expected[0].transpose(1, 2).flatten(2))
    assert torch.equal(grad, torch.stack(expected[1:]).permute(1, 3, 0, 2, 4))


@pytest.mark.parametrize(("heads", "head_dim"), [(12, 16), (3, 64)])
def test_compiled_is_the_same_in_one_kernel_each_way(heads, head_dim):
    qkv = random_tensor(4, 65, 3, heads, head_dim).requires_grad_()
    dout = random_tensor(4, 65, heads * head_dim, seed=1)
    compiled = torch.compile(attention_qkv, fullgraph=True)
    expected = packed_step(attention_qkv, qkv, dout)
    found = packed_step(compiled, qkv, dout)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        packed_step(compiled, qkv, dout)
        torch.cuda.synchronize()
    names = [event.name for event in profiled.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    work = sorted(name.split("_kernel")[0] for name in names if "kernel" in name or name.startswith("Mem"))
    assert work == ["attention", "attention_backward"], "anything else is a copy"


def test_compiles_with_a_changing_batch():
    compiled = torch.compile(attention_qkv, fullgraph=True, dynamic=True)
    for batch in (4, 7):
        qkv, dout = random_tensor(batch, 65, 3, 3, 16).requires_grad_(), random_tensor(batch, 65, 48, seed=1)
        found, expected = packed_step(compiled, qkv, dout), packed_step(attention_qkv, qkv, dout)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_cuda_graph_replays_on_new_numbers():
    qkv, dout = random_tensor(4, 65, 3, 12, 16).requires_grad_(), random_tensor(4, 65, 192, seed=1)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        packed_step(attention_qkv, qkv, dout)  # compiles the kernels
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = packed_step(attention_qkv, qkv, dout)
    for seed in (2, 3):
        with torch.no_grad():
            qkv.copy_(random_tensor(*qkv.shape, seed=seed))
        graph.replay()
        expected = packed_step(attention_qkv, qkv, dout)
        assert all(torch.equal(a, b) for a, b in zip(captured, expected, strict=True))


def test_operators_are_well_formed():
    from pocketvit.kernels import attention_operators as operators

    q, k, v = (x.detach().requires_grad_() for x in inputs(2, 4, 2, 17, 16))
    torch.library.opcheck(operators.attention_op, (q, k, v, 0.25))
    torch.library.opcheck(operators.attention_qkv_op, (random_tensor(2, 17, 3, 2, 16).requires_grad_(), 0.25))


def test_float32_runs_the_twin():
    tensors = [x.float() for x in inputs(2, 3, 3, 65, 16)]
    assert "dtypes" in supported(*tensors)
    torch.testing.assert_close(attention(*tensors), attention(*tensors, kernels="reference"))
