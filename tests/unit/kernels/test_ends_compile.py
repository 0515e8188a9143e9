"""Triton's kernels beside the persistent blocks compile for compute capability 9.0, which needs no GPU.

The interpreter accepts what the compiler refuses, such as a name with another type in each branch.
"""

from typing import Any

import pytest
import torch
from block_cases import Case
from interpreter import natively

from pocketvit.config import ModelConfig
from pocketvit.kernels import head, launch, stem
from pocketvit.kernels.persistent import build
from pocketvit.model import ViT
from pocketvit.training.compiling import shadow_blocks, shadow_ends

triton = pytest.importorskip("triton")
TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.int32: "*i32"}
SHARED_BYTES = 227 * 1024


def compiled(kernel: Any, constants: dict[str, Any], arguments: tuple[Any, ...]) -> Any:
    """A kernel's code, given what it is launched with."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    options = {name: constants.pop(name) for name in ("num_warps",) if name in constants}
    kinds = {int: "i32", float: "fp32"}
    signature = {
        name: TYPES[value.dtype] if isinstance(value, torch.Tensor) else kinds[type(value)]
        for name, value in zip(kernel.arg_names, arguments, strict=False)
    }
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(signature.values()) if kind.startswith("*")}
    assert signature.keys() | constants.keys() == set(kernel.arg_names)
    places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, signature | dict.fromkeys(constants, "constexpr"), places, aligned)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)


@natively
@pytest.mark.parametrize(
    ("choices", "num_classes"),
    [({}, 10), ({"pool": "mean", "num_cls_tokens": 0, "patch_size": 8, "patch_stride": 4}, 200)],
    ids=str,
)
def test_kernels_compile(choices, num_classes, monkeypatch, tmp_path):
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))
    found = {}

    def note(kernel: Any, _grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
        found[kernel.__name__] = compiled(kernel, constants, arguments)

    monkeypatch.setattr(launch, "is_compiling", lambda: True)
    for module in (launch, head, stem):
        monkeypatch.setattr(module, "launch", note)
    monkeypatch.setattr(build, "ahead", lambda _: None)
    monkeypatch.setattr(ViT, "_beside", lambda *_: launch.Choice("persistent", None))
    shadow_ends(ViT(ModelConfig(**choices), num_classes=num_classes), 256)
    if not choices:
        shadow_blocks(Case(2, 65, 192, 12, 2, 1).plan, 256, 65, kernels="persistent")
    assert len(found) == (5 if choices else 7)
    assert all(code.asm["cubin"].startswith(b"\x7fELF") for code in found.values())
    assert all(code.metadata.shared <= SHARED_BYTES for code in found.values())
