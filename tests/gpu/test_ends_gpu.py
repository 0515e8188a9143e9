"""Stem and head by kernels on the GPU against float64, repeated; and what a step with them still copies."""

import pytest
import torch
from head_cases import HEAD_CASES, HeadCase, assert_head_is_as_float64, head_inputs, head_results
from stem_cases import STEM_CASES, StemCase, assert_stem_is_as_float64, stem_inputs, stem_results

from pocketvit.config import override
from pocketvit.kernels.gradient_memory import whole_array
from pocketvit.recipes import recipe
from pocketvit.training.progress import SilentReporter
from pocketvit.training.trainer import Trainer

pytestmark = pytest.mark.gpu

HEADS = [
    *HEAD_CASES,
    HeadCase(256, 1, 192, 10),
    HeadCase(1024, 1, 192, 100),
    HeadCase(255, 2, 192, 10, num_cls=2),
    HeadCase(256, 64, 192, 10, num_cls=0, num_special=0),
    HeadCase(33, 72, 192, 300, num_cls=0, num_special=3),
    HeadCase(5, 1, 192, 512),
]
STEMS = [
    *STEM_CASES,
    StemCase(256, 32, 32, 4, 4, 192),
    StemCase(1023, 32, 32, 4, 4, 192, num_cls=2, num_registers=1, positions="fixed"),
    StemCase(512, 32, 32, 8, 4, 192, num_cls=0),
]
REPEATS = 20


@pytest.mark.parametrize("case", HEADS, ids=str)
def test_the_head_and_its_gradients(case):
    assert_head_is_as_float64(case, 5e-3, "cuda", torch.bfloat16)


@pytest.mark.parametrize("case", STEMS, ids=str)
def test_the_stem_and_its_gradients(case):
    assert_stem_is_as_float64(case, 5e-3, "cuda", torch.bfloat16)


@pytest.mark.parametrize("case", [HEADS[-6], HEADS[-5], HEADS[-3], STEMS[-3], STEMS[-1]], ids=str)
def test_the_same_inputs_give_the_same_bits(case):
    """Also where the caches hold something else."""
    sweep = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
    if isinstance(case, HeadCase):
        inputs = head_inputs(case, "cuda", torch.bfloat16)
        runs = (head_results(inputs, case.plan) for _ in range(REPEATS))
    else:
        inputs = stem_inputs(case, "cuda", torch.bfloat16)
        runs = (list(stem_results(inputs, case).values()) for _ in range(REPEATS))
    first = next(runs)
    for i, again in enumerate(runs):
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True)), f"repeat {i}"
        sweep.random_()


MODELS = [
    {},
    {"model.num_cls_tokens": 2, "model.num_registers": 1},
    {"model.pool": "mean", "model.num_cls_tokens": 0, "model.patch_size": 8, "model.patch_stride": 4},
]


def started(splits, values: dict) -> Trainer:
    """The paper's recipe with two blocks, before its first step."""
    few = {"batch_size": 64, "model.depth": 2, "schedule.passes": 4, "schedule.warmup_passes": 0}
    config = override(recipe("paper"), few | {"train.kernels": "persistent"} | values)
    trainer = Trainer(config, splits, torch.device("cuda", 0), SilentReporter())
    trainer.step.chunk = trainer.chunks.load(0, 0, trainer.loader.chunk_steps)
    return trainer


@pytest.mark.parametrize("values", MODELS, ids=str)
def test_no_gradient_is_gathered(values, synthetic_splits):
    trainer = started(synthetic_splits, values)
    for _ in range(2):
        trainer.step.backward()
        assert whole_array(list(trainer.model.parameters())) is not None
        for optimizer in trainer.step.optimizers:
            optimizer.zero_grad()


def test_a_rank_that_is_merged_is_gathered(synthetic_splits):
    """Gradients of the parts of a product are PyTorch's; the others are in place."""
    trainer = started(synthetic_splits, {"model.k_rank": 16})
    trainer.step.backward()
    assert whole_array(list(trainer.model.parameters())) is None
    array = trainer.step.optimizers[0]._gradients[0]
    inside = {name for name, p in trainer.model.named_parameters() if holds(array, p.grad)}
    assert {"head.weight", "tokens.positions", "blocks.1.mlp.fc1.weight", "blocks.0.norm1.weight"} <= inside
    assert not any(".attn.k." in name for name in inside)


def holds(array: torch.Tensor, part: torch.Tensor) -> bool:
    return array.untyped_storage().data_ptr() == part.untyped_storage().data_ptr()


def test_the_first_step_compiles_neither(synthetic_splits):
    from pocketvit.kernels import head_triton, stem_triton
    from pocketvit.kernels.persistent import pack_triton

    modules = head_triton, stem_triton, pack_triton
    kernels = [kernel for module in modules for name, kernel in vars(module).items() if name.endswith("_kernel")]
    assert len(kernels) == 7

    def compiled() -> list[int]:
        return [len(caches[0]) for kernel in kernels for caches in kernel.device_caches.values()]

    trainer = started(synthetic_splits, {})
    before = compiled()
    assert len(before) == len(kernels), "all are compiled by now"
    trainer.model.train()
    trainer.step.set_chunk(trainer.step.chunk)
    trainer.step()
    assert compiled() == before
