"""The block kernels on the GPU against float64, repeated, in CUDA graphs, and in training."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from block_cases import Case, Inputs, assert_small, random_inputs, relative_errors, results
from poison import poisoned_memory
from torch import Tensor
from training_cases import first_gradients, gradient_errors

from pocketvit.config import override
from pocketvit.data import Split, Splits
from pocketvit.kernels.blocks import blocks_reference, run_blocks, supported
from pocketvit.recipes import recipe
from pocketvit.training.progress import SilentReporter
from pocketvit.training.trainer import Trainer

pytestmark = pytest.mark.gpu

CASES = [
    Case(256, 65, 192, 12, 2, 1),
    Case(256, 65, 192, 3, 2, 1),
    Case(256, 66, 96, 6, 2, 2),
    Case(256, 64, 192, 12, 2, 64),
    Case(255, 65, 192, 12, 2, 65, centred=False),
    Case(7, 65, 192, 12, 4, 1, num_layers=3, tanh=True),
    Case(33, 65, 192, 6, 1, 1, num_kv_heads=2),
    Case(33, 65, 192, 12, 2, 1, num_kv_heads=1, centred=False, tanh=True),
    Case(31, 68, 192, 12, 2, 4),
    Case(5, 17, 32, 2, 4, 1),
    Case(129, 17, 32, 1, 1, 17, centred=False),
    Case(3, 5, 64, 4, 2, 1),
    Case(61, 50, 64, 1, 4, 50, tanh=True),
    Case(13, 50, 96, 4, 1, 1, num_kv_heads=2),
    Case(9, 101, 96, 2, 4, 3, centred=False),
    Case(11, 65, 128, 8, 4, 1),
    Case(6, 197, 128, 2, 2, 197, tanh=True),
    Case(17, 65, 160, 4, 2, 1),
    Case(3, 257, 160, 10, 1, 1, centred=False),
    Case(9, 65, 224, 4, 4, 65),
    Case(5, 101, 224, 14, 2, 1, tanh=True),
    Case(17, 65, 256, 4, 4, 1),
    Case(2, 257, 256, 16, 4, 257, num_kv_heads=4, centred=False, tanh=True),
    Case(1, 66, 256, 8, 1, 2),
    Case(256, 66, 96, 12, 2, 2),
    Case(9, 65, 128, 16, 1, 65, num_kv_heads=4, centred=False),
]

PAPER = CASES[0]

STEPS = 4

fused = partial(run_blocks, kernels="fused")


def on_gpu(case: Case, seed: int = 0) -> Inputs:
    """In bfloat16. A single image keeps every branch: a skipped one would have no gradients to compare."""
    inputs = random_inputs(case, "cuda", torch.bfloat16, seed)
    return inputs if case.B > 1 else inputs._replace(keep=torch.full_like(inputs.keep, 1.25))


def poisoned_results(inputs: Inputs, case: Case) -> list[Tensor]:
    """The output and the gradients of the fused kernels."""
    with poisoned_memory("cuda"):
        return results(fused, inputs, case.plan)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients(case):
    inputs = on_gpu(case)
    assert supported(inputs.x.device, inputs.x.dtype, case.N, case.plan) is None
    exact = results(blocks_reference, inputs, case.plan, exact=True)
    assert_small(relative_errors(poisoned_results(inputs, case), exact), 1e-2)


@pytest.mark.parametrize("case", [PAPER, CASES[2], CASES[12], CASES[22]], ids=str)
def test_the_same_inputs_give_the_same_bits(case):
    inputs = on_gpu(case)
    first, second = poisoned_results(inputs, case), poisoned_results(inputs, case)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("case", [PAPER, CASES[5]], ids=str)
def test_large_activations_stay_finite(case):
    """A stream of size 1,000, scores of 10,000, and a hidden layer of 100, where GELU is flat or straight."""
    inputs = on_gpu(case)
    inputs.weights.w_qkv.mul_(100)
    inputs.weights.w_fc1.mul_(100)
    found = poisoned_results(inputs._replace(x=1e3 * inputs.x), case)
    assert all(tensor.isfinite().all() for tensor in found)


@pytest.mark.parametrize("case", [PAPER, CASES[4]], ids=str)
def test_without_gradients_the_output_is_the_same(case):
    inputs = on_gpu(case)
    kept = fused(inputs.x, inputs.keep, inputs.weights, case.plan)
    with poisoned_memory("cuda"), torch.no_grad():
        assert torch.equal(fused(inputs.x, inputs.keep, inputs.weights, case.plan), kept)
    ones = torch.ones_like(inputs.keep)
    none, all_kept = (fused(inputs.x, keep, inputs.weights, case.plan) for keep in (None, ones))
    assert torch.equal(none, all_kept)


def test_cuda_graph_replays_on_new_numbers():
    inputs = on_gpu(PAPER)
    leaves = [leaf.requires_grad_() for leaf in inputs.leaves]

    def step() -> tuple[Tensor, ...]:
        out = fused(inputs.x, inputs.keep, inputs.weights, PAPER.plan)
        return out.detach(), *torch.autograd.grad(out, leaves, inputs.dout)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()  # compiles the kernels
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for seed in (1, 2):
        new = on_gpu(PAPER, seed)
        with torch.no_grad():
            for mine, other in zip((*leaves, inputs.keep, inputs.dout), (*new.leaves, new.keep, new.dout), strict=True):
                mine.copy_(other)
        graph.replay()
        expected = results(fused, new, PAPER.plan)
        assert all(torch.equal(a, b) for a, b in zip(captured, expected, strict=True))


def test_float32_runs_the_twin():
    inputs = random_inputs(CASES[9], "cuda")
    assert "bfloat16" in supported(inputs.x.device, inputs.x.dtype, CASES[9].N, CASES[9].plan)
    arguments = inputs.x, inputs.keep, inputs.weights, CASES[9].plan
    assert torch.equal(run_blocks(*arguments), run_blocks(*arguments, kernels="reference"))


def started(splits, kernels: str, values: dict) -> Trainer:
    """The paper's recipe before its first step, on a smaller model unless `values` say otherwise."""
    small = {"batch_size": 64, "model.width": 96, "model.depth": 3, "model.num_heads": 6, "model.drop_path": 0.3}
    small |= {"schedule.passes": 4, "schedule.warmup_passes": 0, "train.compile": False, "train.kernels": kernels}
    trainer = Trainer(override(recipe("paper"), small | values), splits, torch.device("cuda", 0), SilentReporter())
    assert trainer.fused == (kernels == "fused")
    trainer.step.set_chunk(trainer.chunks.load(0, 0, trainer.loader.chunk_steps))
    return trainer


def losses(trainer: Trainer) -> Tensor:
    """The losses of the first steps."""
    for _ in range(STEPS):
        trainer.step()
    return trainer.step.losses[:STEPS].cpu()


TRAINED = [
    {},
    {"model.num_cls_tokens": 2, "model.k_rank": 16},
    {"model.pool": "mean"},
    {"model.norm": "rmsnorm", "model.layer_scale": 0.1, "model.num_kv_heads": 2},
]


@pytest.mark.parametrize("values", TRAINED, ids=str)
def test_training_with_and_without_the_kernels(values, synthetic_splits):
    ours = losses(started(synthetic_splits, "fused", values))
    torch.testing.assert_close(ours, losses(started(synthetic_splits, "reference", values)), rtol=3e-2, atol=0)
    assert torch.equal(ours, losses(started(synthetic_splits, "fused", values))), "the same seed gives the same bits"


WHOLE = {"model.width": 192, "model.depth": 9, "model.num_heads": 12, "data.repeats": "batch"}
"""The paper's model with Batch Augmentation."""


@pytest.fixture(scope="module")
def many_splits(synthetic_splits) -> Splits:
    """The same images eight times: as many as four of the paper's largest batches hold."""
    images, labels = synthetic_splits.train.images, synthetic_splits.train.labels
    train = Split(np.tile(images, (8, 1, 1, 1)), np.tile(labels, 8))
    return replace(synthetic_splits, train=train)


@pytest.mark.parametrize(("batch_size", "optimizer"), [(256, "adamw"), (1024, "adamw"), (1024, "lion"), (1024, "muon")])
def test_the_papers_model_gives_the_same_bits(batch_size, optimizer, many_splits):
    values = WHOLE | {"batch_size": batch_size, "optim.name": optimizer}
    first, second = (started(many_splits, "fused", values) for _ in range(2))
    assert torch.equal(losses(first), losses(second))
    weights = zip(first.model.named_parameters(), second.model.named_parameters(), strict=True)
    assert [name for (name, a), (_, b) in weights if not torch.equal(a, b)] == []


@pytest.mark.parametrize("values", TRAINED, ids=str)
def test_a_steps_gradients_with_and_without_the_kernels(values, synthetic_splits):
    """In bf16 against plain PyTorch in fp32; rounding to bf16 alone makes errors of up to 0.012 here."""
    found = first_gradients(started(synthetic_splits, "fused", values))
    wanted = first_gradients(started(synthetic_splits, "reference", values | {"train.precision": "fp32"}))
    assert_small(gradient_errors(found, wanted), 5e-2)
