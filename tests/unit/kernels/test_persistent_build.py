"""From the CUDA sources to machine code and launches, as far as that can be seen without a GPU."""

import ctypes
import math

import numpy as np
import pytest
import torch
from block_cases import Case

from pocketvit.kernels import blocks, launch
from pocketvit.kernels.persistent import build, layout
from pocketvit.kernels.persistent.driver import Box, Params

PAPER = Case(2, 65, 192, 12, 2, 1)
KERNELS = {
    "forward": (layout.FORWARD_KERNEL, Params([None] * 6, [None] * 7, [0] * 5, [0.0])),
    "backward": (layout.BACKWARD_KERNEL, Params([None] * 14, [None] * 6, [0] * 5, [])),
    "weights": (layout.WEIGHTS_KERNEL, Params([None] * 14, [None] * 11, [0] * 11, [])),
}
needs_nvrtc = pytest.mark.skipif(build.missing() is not None, reason="needs NVRTC, which PyTorch for CUDA brings")


def phi(h: np.ndarray) -> np.ndarray:
    """The normal distribution function."""
    return np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in h])


def test_the_polynomial_of_gelu():
    """Phi(h) = (1 + tanh(h p(h²))) / 2 to 1.9e-5, GELU(h) = h Phi(h) to 6e-5; far less than bf16 tells apart."""
    h = np.linspace(-8, 8, 4001)
    u = np.minimum(h * h, 16)
    near = (1 + np.tanh(h * np.polyval(build.GELU[::-1], u))) / 2
    assert np.abs(near - phi(h)).max() < 1.9e-5
    assert np.abs(h * (near - phi(h))).max() < 6e-5


def instance(name: str, num_tokens: int = 65, *, tanh: bool = False) -> build.Instance:
    kernel, params = KERNELS[name]
    return build.Instance(kernel, num_tokens, tanh, params.size())


@needs_nvrtc
@pytest.mark.parametrize(("name", "num_tokens", "tanh"), [
    ("forward", 65, False), ("backward", 65, False), ("weights", 65, False), ("forward", 64, False), ("backward", 50, True),
])  # fmt: skip
def test_sources_compile_and_count_as_python_does(name, num_tokens, tanh, fresh_cache):
    """The sources assert the sizes of parameters and of shared memory."""
    code = build.cubin(instance(name, num_tokens, tanh=tanh))
    assert code.startswith(b"\x7fELF")
    assert [path.suffix for path in fresh_cache.rglob("vit_*")] == [".cubin"]


@needs_nvrtc
def test_a_kernel_in_the_cache_is_not_compiled_again(fresh_cache, monkeypatch):
    first = build.cubin(instance("weights"))
    build._made.clear()
    monkeypatch.setattr(build, "compiled", lambda *_: pytest.fail("compiled again"))
    assert build.cubin(instance("weights")) == first
    monkeypatch.setattr(build, "GELU", (0.0, 0.0, 0.0))
    build._made.clear()
    with pytest.raises(pytest.fail.Exception, match="compiled again"):
        build.cubin(instance("weights"))


@needs_nvrtc
def test_what_does_not_compile_says_where(fresh_cache):
    with pytest.raises(RuntimeError, match=r"weights.cu does not compile:\n.*Python counts otherwise"):
        build.cubin(instance("weights")._replace(params_bytes=64))


@pytest.fixture
def fresh_cache(tmp_path, monkeypatch):
    """An empty folder for machine code."""
    monkeypatch.setattr(launch.triton.knobs.cache, "dir", str(tmp_path))
    monkeypatch.setattr(build, "_made", {})
    return tmp_path


def test_geometry_of_boxes():
    """Sizes and strides from the innermost on, strides in bytes."""
    rows = Box(torch.empty(40, 192, dtype=torch.bfloat16), 5)
    assert rows.geometry() == ([192, 40], [384], [64, 5])
    layers = Box(torch.empty(3, 40, 384, dtype=torch.bfloat16), 64)
    assert layers.geometry() == ([384, 40, 3], [768, 768 * 40], [64, 64, 1])
    last = torch.empty(3, 5, 8, 192, dtype=torch.bfloat16)[-1].view(-1, 192)[:10]
    assert Box(last, 2).geometry() == ([192, 10], [384], [64, 2])


def test_parameters_lie_as_in_c():
    """Maps of 128 bytes, then pointers, integers and floats, the whole a multiple of 64 bytes."""
    tensor = torch.empty(1)
    packed = Params([None, None], [tensor, None], [3, -1], [0.5]).packed()
    assert len(packed) == 320 and packed[:256] == bytes(256)
    assert ctypes.c_uint64.from_buffer_copy(packed, 256).value == tensor.data_ptr()
    assert ctypes.c_uint64.from_buffer_copy(packed, 264).value == 0
    assert [ctypes.c_int.from_buffer_copy(packed, 272 + 4 * i).value for i in range(2)] == [3, -1]
    assert ctypes.c_float.from_buffer_copy(packed, 280).value == 0.5


def choice(case: Case, kernels: str = "auto", dtype: torch.dtype = torch.bfloat16):
    kinds = blocks.implementations(torch.device("cuda"), dtype, case.N, case.plan)
    return launch.choose("the blocks", kernels, kinds, fall_back=True)


def test_what_runs_on_an_h100(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    monkeypatch.setattr(blocks, "supported", lambda _, dtype, *__: None if dtype is torch.bfloat16 else "not bf16")
    monkeypatch.setattr(build, "missing", lambda: None)
    assert choice(PAPER) == launch.Choice("persistent", None)
    assert choice(PAPER, "fused").name == "fused"
    for other, reason in [
        (PAPER._replace(width=96, num_heads=6), "made for a width of 192"),
        (PAPER._replace(num_kv_heads=2), "12 heads with keys of their own"),
        (PAPER._replace(centred=False), "LayerNorm"),
        (PAPER._replace(N=101), "49 to 72 tokens, not 101"),
    ]:
        assert choice(other).name == "fused" and reason in choice(other).reason
        assert choice(other, "persistent").name == "reference"
    assert choice(PAPER, dtype=torch.float32).name == "reference"
    monkeypatch.setattr(build, "missing", lambda: "NVRTC cannot be loaded (gone)")
    assert choice(PAPER) == launch.Choice("fused", "NVRTC cannot be loaded (gone)")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 1))
    assert "9.0" in choice(PAPER).reason


def test_without_nvrtc_there_is_a_reason(monkeypatch):
    def broken() -> tuple[int, ...]:
        raise ImportError("No module named 'cuda'\nand more")

    monkeypatch.setattr(build, "_nvrtc_version", broken)
    assert build.missing() == "NVRTC cannot be loaded (No module named 'cuda')"


def test_all_three_are_compiled_ahead(monkeypatch):
    """A step's shadow, on tensors without memory, asks for what a step runs, and runs nothing."""
    pytest.importorskip("triton")
    from pocketvit.training.compiling import shadow_blocks

    asked, packed = [], []
    monkeypatch.setattr(launch, "is_compiling", lambda: True)
    monkeypatch.setattr(launch, "launch", lambda kernel, *_, **__: packed.append(kernel.__name__))
    monkeypatch.setattr(build, "ahead", asked.append)
    monkeypatch.setattr("pocketvit.kernels.persistent.blocks.launch", lambda *_: pytest.fail("ran"))
    shadow_blocks(PAPER._replace(tanh=True).plan, 4, 65, kernels="persistent")
    assert packed == ["pack_kernel", "unfold_kernel"]
    assert asked == [instance(name)._replace(tanh=True) for name in ("forward", "backward", "weights")]
