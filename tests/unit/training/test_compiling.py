"""What is compiled ahead is what a step then launches.

The tests marked `in_interpreter` are run by `test_blocks_kernel`, in a process of their own.
"""

import importlib
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from interpreter import in_interpreter, natively

from pocketvit.augment.batch import BatchMaker, Chunk
from pocketvit.config import ModelConfig
from pocketvit.kernels import launch as launching
from pocketvit.kernels.head import head_loss
from pocketvit.model import ViT
from pocketvit.model.ends import head_parts
from pocketvit.model.folded import plan_of
from pocketvit.objectives.objective import Stack
from pocketvit.training import compiling as ahead
from pocketvit.training.compiling import shadow_batch, shadow_blocks, shadow_ends

pytest.importorskip("triton", reason="needs Triton")

CHOICES = {
    "paper": {"num_heads": 2},
    "rmsnorm": {"num_heads": 4, "norm": "rmsnorm", "num_kv_heads": 2},
    "mean pool, tanh": {"num_heads": 2, "pool": "mean", "activation": "gelu_tanh"},
}


@pytest.fixture
def launched(monkeypatch) -> Callable[[], set]:
    """Gives what was launched since the last call, as far as Triton compiles for it."""
    for name in ("attention_ops", "blocks_ops", "fold", "head", "stem"):
        importlib.import_module(f"pocketvit.kernels.{name}")  # those that are loaded late would keep the substitute
    seen = set()

    def kind(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.dtype, value.data_ptr() % 16
        return (value == 1, value % 16 == 0) if isinstance(value, int) else value

    def note(kernel: Any, _grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
        ignored = kernel.kwargs["do_not_specialize"] or ()
        kinds = [kind(value) for name, value in zip(kernel.arg_names, arguments, strict=False) if name not in ignored]
        seen.add((kernel.__name__, *kinds, *sorted(constants.items())))
        if not any(isinstance(value, torch.Tensor) and value.is_meta for value in arguments):
            launch(kernel, _grid, *arguments, **constants)

    def take() -> set:
        found = set(seen)
        seen.clear()
        return found

    launch = launching.launch
    for name, module in list(sys.modules.items()):
        if name.startswith("pocketvit.") and getattr(module, "launch", None) is launch:
            monkeypatch.setattr(module, "launch", note)
    return take


@in_interpreter
@pytest.mark.parametrize("name", CHOICES)
def test_the_shadow_launches_what_a_step_launches(name, launched, monkeypatch):
    from pocketvit.optim.flat import AdamW

    model = ViT(ModelConfig(width=32, depth=2, **CHOICES[name]), image_size=(16, 16))
    AdamW(model.parameters())  # lays the parameters out as in a run
    model.use_kernels("auto")
    batches = BatchMaker(torch.full((3,), 0.5), torch.full((3,), 0.25), 10, 0.1)
    labels, erase = (torch.zeros(8, *n, dtype=torch.int64) for n in ((), (4,)))
    chunk = Chunk(torch.zeros(8, 16, 16, 3, dtype=torch.uint8), labels, erase, torch.ones(2, 7))
    launched()
    x, targets, *_ = batches.fused(chunk, torch.ones(1, dtype=torch.int64), torch.float32)
    (model(x, torch.ones(2, 2, 4)) * targets).sum().backward()
    real = launched()
    assert len({kernel for kernel, *_ in real}) == 10
    monkeypatch.setattr(launching, "_compiling", _Set())
    shadow_blocks(plan_of(model.config, model.tokens.num_tokens), 4, model.tokens.num_tokens, torch.float32)
    shadow_batch(model, 4, 0.1, torch.float32)
    assert launched() == real


@in_interpreter
@pytest.mark.parametrize("choices", [{}, {"pool": "mean", "num_registers": 1, "positions": "sincos"}], ids=str)
def test_the_shadow_launches_the_ends_that_a_step_launches(choices, launched, monkeypatch):
    """With stem and head chosen as beside persistent blocks, which the interpreter cannot run."""
    from pocketvit.optim.flat import AdamW

    model = ViT(ModelConfig(width=32, depth=1, num_heads=2, **choices), image_size=(16, 16))
    optimizer = AdamW(model.parameters())
    optimizer.offer_gradient_memory()
    monkeypatch.setattr(ViT, "_beside", lambda self, what, images, why_not: launching.Choice("persistent", why_not()))
    launched()
    tokens = model.embed(torch.zeros(4, 3, 16, 16))
    weights, plan = head_parts(model, 0.25)
    head_loss(tokens[:, : model.tokens.num_read].contiguous(), torch.ones(4, 10), weights, plan)[0].backward()
    real = launched()
    assert len({kernel for kernel, *_ in real}) == 5
    monkeypatch.setattr(launching, "_compiling", _Set())
    shadow_ends(model, 4, torch.float32)
    assert launched() == real


class _Set:
    """A context variable that is set."""

    def get(self) -> bool:
        return True


class Compiled:
    """A kernel that can only be compiled, and notes by whom."""

    def __init__(self) -> None:
        self.asked = []

    def warmup(self, *arguments: Any, grid: tuple[int, ...], **constants: Any) -> None:
        self.asked.append((arguments, grid, constants))


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, kernel):
        ctx.kernel = kernel
        launching.launch(kernel, (1,), x, WAY="forward")
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx, dx):
        launching.launch(ctx.kernel, (2,), dx, WAY="backward")
        return torch.empty_like(dx), None


@natively
def test_forward_and_backward_only_compile():
    kernel, x = Compiled(), torch.empty(3, device="meta", requires_grad=True)
    with launching.compiling():
        out = Doubled.apply(x, kernel)
        out.backward(torch.empty_like(out))
    assert [(grid, constants) for _, grid, constants in kernel.asked] == [
        ((1,), {"WAY": "forward"}),
        ((2,), {"WAY": "backward"}),
    ]


@natively
def test_a_split_batch_has_the_kernels_of_a_piece(monkeypatch):
    """But for the one that makes the batch, before it is split."""
    sizes = {}
    for part in ("blocks", "batch", "ends"):
        shadow = partial(lambda part, _, size, *__, **___: sizes.update({part: size}), part)
        monkeypatch.setattr(ahead, f"shadow_{part}", shadow)
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(ViT, "block_kernels", lambda *_: launching.Choice("persistent", None))
    with ahead.kernels_compiled(ViT(ModelConfig(width=32, depth=1, num_heads=2)), [Stack(65, 1)], 8, 0.1, 4):
        pass
    assert sizes == {"blocks": 4, "batch": 8, "ends": 4}


@natively
def test_other_threads_go_on_running_kernels():
    with launching.compiling(), ThreadPoolExecutor(1) as thread:
        assert launching.is_compiling()
        assert not thread.submit(launching.is_compiling).result()
    assert not launching.is_compiling()
