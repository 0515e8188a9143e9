"""Which kernels a run takes, what it says about them, and that they are compiled beside the rest; models play a GPU's."""

import threading
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pocketvit.config import ModelConfig, TrainConfig
from pocketvit.errors import InputError
from pocketvit.kernels.launch import Choice, is_compiling
from pocketvit.model import ViT
from pocketvit.objectives.objective import Stack
from pocketvit.training import compiling
from pocketvit.training.distributed import ALONE, Processes
from pocketvit.training.progress import SilentReporter
from pocketvit.training.resume import keep_kernels
from pocketvit.training.setup import choose_kernels

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
FUSED, PERSISTENT = Choice("fused", None), Choice("persistent", None)


class Model:
    """A model with these kernels for its blocks, by the number of tokens, and beside them."""

    def __init__(self, blocks: dict[int, Choice], stem: Choice = PERSISTENT, head: Choice = PERSISTENT) -> None:
        self.blocks, self.stem, self.head, self.used = blocks, stem, head, []

    def use_kernels(self, kernels: str) -> None:
        self.used.append(kernels)

    def block_kernels(self, device: torch.device, dtype: torch.dtype, num_tokens: int) -> Choice:
        assert dtype == (torch.bfloat16 if device.type == "cuda" else torch.float32)
        return self.blocks[num_tokens]

    def stem_kernels(self, images: torch.Tensor) -> Choice:
        return self.stem

    def head_kernels(self, images: torch.Tensor) -> Choice:
        return self.head


class Heard(SilentReporter):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


def chosen(
    model: Any, device: torch.device, kernels: str = "auto", processes: Processes = ALONE
) -> tuple[str, list[str]]:
    """The kernels of a run with stacks of 5 and of 3 tokens, and what was said."""
    heard, config = Heard(), TrainConfig(kernels=kernels)
    found = choose_kernels(model, [Stack(5, 1), Stack(3, 1)], config, device, processes, heard)
    assert model.used == [kernels]
    return found, heard.lines


def test_the_kernels_are_those_of_whole_images_and_each_reason_is_said_once():
    slow, none = Choice("fused", "it has 2 CLS tokens"), Choice("reference", "3 tokens are too few")
    assert chosen(Model({5: FUSED, 3: FUSED}), GPU) == ("fused", [])
    said = ["the blocks run as fused kernels: it has 2 CLS tokens"]
    assert chosen(Model({5: slow, 3: slow}), GPU) == ("fused", said)
    said.append("the blocks run without fused kernels: 3 tokens are too few")
    assert chosen(Model({5: slow, 3: none}), GPU) == ("fused", said)
    assert chosen(Model({5: none, 3: none}), CPU) == ("reference", []), "on a CPU that is usual"
    assert chosen(Model({5: none, 3: none}), GPU, "reference") == ("reference", []), "and as asked for"


def test_persistent_blocks_say_what_runs_beside_them_in_pytorch():
    blocks = {5: PERSISTENT, 3: PERSISTENT}
    assert chosen(Model(blocks), CPU) == ("persistent", [])
    beside = Model(blocks, head=Choice("reference", "the head has two layers"))
    assert chosen(beside, CPU) == ("persistent", ["the head runs in PyTorch: the head has two layers"])


@pytest.mark.parametrize(("rank", "error"), [(0, InputError), (1, SystemExit)])
def test_kernels_asked_for_that_some_blocks_lack_are_refused_and_the_first_process_says_why(rank, error):
    model = Model({5: FUSED, 3: Choice("reference", "3 tokens are too few")})
    said = "train.kernels=fused is not supported here: 3 tokens are too few; use train.kernels=auto"
    with pytest.raises(error, match=said if rank == 0 else "2"):
        chosen(model, GPU, "fused", Processes(rank, 2))


def resumed(began_with: str, now: str, model: Model, wanted: str = "auto") -> tuple[str, list[str], list[str]]:
    """A run that began with some kernels and is resumed with others: what it takes, was told to use, and said."""
    trainer: Any = SimpleNamespace(config=SimpleNamespace(train=TrainConfig(kernels=wanted)), device=CPU, model=model)
    trainer.kernels, trainer.reporter = now, Heard()
    trainer.objective = SimpleNamespace(stacks=lambda _: [Stack(5, 1)])
    keep_kernels(trainer, began_with)
    return trainer.kernels, model.used, trainer.reporter.lines


def test_a_resumed_run_keeps_the_kernels_it_began_with_if_it_can():
    """They differ by rounding, so a run that changes them is another one than an undisturbed one."""
    able = {5: FUSED}
    kept = ["the blocks keep the fused kernels that the run began with"]
    assert resumed("fused", "persistent", Model(able)) == ("fused", ["fused"], kept)
    assert resumed("persistent", "fused", Model(able)) == ("fused", ["persistent", "fused"], []), "it cannot any more"
    assert resumed("fused", "fused", Model(able)) == ("fused", [], [])
    assert resumed("fused", "persistent", Model(able), wanted="persistent") == ("persistent", [], []), "as asked for"
    for kinds in (("reference", "fused"), ("fused", "reference")):
        assert resumed(*kinds, Model(able)) == (kinds[1], [], []), "on another kind of device"


@pytest.fixture
def compiled(monkeypatch) -> list[Any]:
    """What kernels were compiled for, in order."""
    asked: list[Any] = []

    def blocks(plan: Any, batch_size: int, num_tokens: int, *, kernels: str) -> None:
        assert is_compiling(), "nothing is run on a GPU"
        asked.append((kernels, plan, batch_size, num_tokens))

    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(compiling, "plan_of", lambda config, *stack: stack)
    monkeypatch.setattr(compiling, "shadow_blocks", blocks)
    monkeypatch.setattr(compiling, "shadow_batch", lambda model, *sizes: asked.append(("batch", *sizes)))
    monkeypatch.setattr(compiling, "shadow_ends", lambda model, *size: asked.append(("ends", *size)))
    kinds = {5: "fused", 3: "reference", 7: "persistent"}
    monkeypatch.setattr(ViT, "block_kernels", lambda self, device, dtype, num_tokens: Choice(kinds[num_tokens], None))
    return asked


MODEL = ViT(ModelConfig(width=24, depth=1, num_heads=2), image_size=(8, 8))
STACKS = [Stack(5, 1), Stack(3, 1), Stack(7, 2)]


@pytest.mark.parametrize(
    ("micro_batch", "piece", "dtype"), [(None, 32, torch.bfloat16), (12, 12, torch.float32), (50, 32, torch.bfloat16)]
)
def test_kernels_are_compiled_for_every_stack_that_has_some(compiled, micro_batch, piece, dtype):
    with compiling.kernels_compiled(MODEL, STACKS, 32, 0.1, micro_batch, dtype):
        pass
    fused, persistent = ("fused", (5, 1), piece, 5), ("persistent", (7, 2), piece, 7)
    assert compiled == [fused, persistent, ("batch", 32, 0.1, dtype), ("ends", piece, dtype)]


def test_kernels_are_compiled_meanwhile_and_ready_at_the_end(compiled, monkeypatch):
    may_end, ended = threading.Event(), []

    def slow(model: ViT, size: int, dtype: torch.dtype) -> None:
        assert may_end.wait(60) and threading.current_thread() is not threading.main_thread()
        ended.append(size)

    monkeypatch.setattr(compiling, "shadow_ends", slow)
    with compiling.kernels_compiled(MODEL, STACKS, 32, 0.1):
        assert not ended, "the rest of a run is set up while they are compiled"
        may_end.set()
    assert ended == [32]


def test_a_kernel_that_does_not_compile_ends_the_run(compiled, monkeypatch):
    def refuse(model: ViT, size: int, dtype: torch.dtype) -> None:
        raise RuntimeError("out of shared memory")

    monkeypatch.setattr(compiling, "shadow_ends", refuse)
    with pytest.raises(RuntimeError, match="out of shared memory"), compiling.kernels_compiled(MODEL, STACKS, 32, 0.1):
        pass
