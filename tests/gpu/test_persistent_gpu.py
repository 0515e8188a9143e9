"""The persistent kernels on the GPU against float64, repeated, and in CUDA graphs."""

import pytest
import torch
from block_cases import Case, Inputs, assert_small, random_inputs, relative_errors, results
from gpu_load import persistent_blocks, products
from poison import poisoned_memory
from torch import Tensor
from training_cases import first_gradients, gradient_errors
from worker_processes import start

from pocketvit.config import override
from pocketvit.kernels import gradient_memory
from pocketvit.kernels.block_weights import BlockPlan, BlockWeights
from pocketvit.kernels.blocks import blocks_reference
from pocketvit.kernels.fold import fold_norm
from pocketvit.kernels.persistent.blocks import PersistentBlocks, supported
from pocketvit.model.folded import repeated
from pocketvit.recipes import recipe
from pocketvit.training.checkpoint import Progress
from pocketvit.training.progress import SilentReporter
from pocketvit.training.resume import keep_kernels
from pocketvit.training.trainer import Trainer

pytestmark = pytest.mark.gpu

PAPER = Case(256, 65, 192, 12, 2, 1)
CASES = [
    PAPER,
    Case(5, 65, 192, 12, 2, 1, num_layers=9, tanh=True),
    Case(255, 65, 192, 12, 2, 65),
    Case(1, 65, 192, 12, 2, 1),
    Case(300, 66, 192, 12, 2, 2, num_layers=3, tanh=True),
    Case(256, 50, 192, 12, 2, 1),
    Case(133, 50, 192, 12, 2, 50, tanh=True),
    Case(256, 49, 192, 12, 2, 49),
    Case(7, 49, 192, 12, 2, 1, tanh=True),
    Case(256, 64, 192, 12, 2, 64),
    Case(31, 64, 192, 12, 2, 64, tanh=True),
    Case(33, 57, 192, 12, 2, 9),
    Case(17, 72, 192, 12, 2, 72),
]
REPEATS = 60


def blocks(x: Tensor, keep: Tensor, weights, plan) -> Tensor:
    return PersistentBlocks.apply(x, keep, plan, torch.is_grad_enabled(), *weights)


def on_gpu(case: Case, seed: int = 0) -> Inputs:
    """In bfloat16. A single image keeps every branch: a skipped one would have no gradients to compare."""
    inputs = random_inputs(case, "cuda", torch.bfloat16, seed)
    return inputs if case.B > 1 else inputs._replace(keep=torch.full_like(inputs.keep, 1.25))


def poisoned_results(inputs: Inputs, case: Case) -> list[Tensor]:
    with poisoned_memory("cuda"):
        return results(blocks, inputs, case.plan)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients(case):
    inputs = on_gpu(case)
    assert supported(inputs.x.device, inputs.x.dtype, case.N, case.plan) is None
    exact = results(blocks_reference, inputs, case.plan, exact=True)
    assert_small(relative_errors(poisoned_results(inputs, case), exact), 1e-2)


@pytest.mark.parametrize("in_place", [False, True])
def test_norms_that_the_kernels_merge(in_place):
    """Against float64, the layers' gradients in memory of their own or as evenly spaced as in an optimizer's array."""
    case = Case(37, 65, 192, 12, 2, 1, num_layers=3)
    inputs, generator = on_gpu(case), torch.Generator("cuda").manual_seed(1)
    norms = [torch.randn(3, 192, device="cuda", generator=generator) for _ in range(4)]
    norms = [1 + 0.3 * norm if i % 2 == 0 else 0.3 * norm for i, norm in enumerate(norms)]
    found, wanted = [], []
    for gradients, exact in ((found, False), (wanted, True)):
        leaves = [t.double() if exact else t for t in (inputs.x, *inputs.weights, *norms)]
        if not exact:
            leaves = [evenly_spaced(leaf) if i and in_place else leaf for i, leaf in enumerate(leaves)]
        leaves = [leaf.detach().requires_grad_() for leaf in leaves]
        x, weights, (factor1, offset1, factor2, offset2) = leaves[0], BlockWeights(*leaves[1:9]), leaves[9:]
        if exact:
            w_qkv, b_qkv = fold_norm(weights.w_qkv, weights.b_qkv, factor1, offset1)
            w_fc1, b_fc1 = fold_norm(weights.w_fc1, weights.b_fc1, factor2, offset2)
            merged = weights._replace(w_qkv=w_qkv, b_qkv=b_qkv, w_fc1=w_fc1, b_fc1=b_fc1)
            out = blocks_reference(x, inputs.keep, merged, case.plan)
        else:
            if in_place:
                offer_places(leaves[1:])
            with poisoned_memory("cuda"):
                out = PersistentBlocks.apply(x, inputs.keep, case.plan, True, *leaves[1:])
        gradients += [out.detach(), *torch.autograd.grad(out, leaves, inputs.dout.to(out.dtype))]
    errors = {
        str(i): float((a.double() - b).norm() / b.norm()) for i, (a, b) in enumerate(zip(found, wanted, strict=True))
    }
    assert_small(errors, 1e-2)
    assert all(t.stride(0) == t[0].numel() + 16 * in_place for t in found[2:])


def test_the_gradients_of_a_repeated_layer_add_up():
    """Against float64; three layers, each applied twice."""
    case = Case(37, 49, 192, 12, 2, 1, num_layers=3)
    inputs = on_gpu(case)._replace(keep=on_gpu(case._replace(num_layers=6)).keep)

    def twice(x: Tensor, keep: Tensor, weights: BlockWeights, plan: BlockPlan) -> Tensor:
        return blocks(x, keep, repeated(weights, 2), plan)

    def one_after_the_other(x: Tensor, keep: Tensor, weights: BlockWeights, plan: BlockPlan) -> Tensor:
        layers = BlockWeights(*(t[[0, 0, 1, 1, 2, 2]] for t in weights))
        return blocks_reference(x, keep, layers, plan)

    with poisoned_memory("cuda"):
        found = results(twice, inputs, case.plan)
    exact = results(one_after_the_other, inputs, case.plan, exact=True)
    assert_small(relative_errors(found, exact), 1e-2)


def evenly_spaced(tensor: Tensor) -> Tensor:
    """A copy whose layers are contiguous, 16 numbers of NaN between them."""
    memory = torch.full((len(tensor), tensor[0].numel() + 16), torch.nan, device=tensor.device)
    return memory[:, :-16].view(tensor.shape).copy_(tensor)


def offer_places(tensors: list[Tensor]) -> None:
    """For the gradient of each tensor memory as evenly spaced as itself."""
    for tensor in tensors:
        room = evenly_spaced(torch.full_like(tensor, torch.nan))
        gradient_memory._offers[tensor] = gradient_memory._Offer(room, [gradient_memory._Room(room, room)])


@pytest.mark.parametrize("case", [PAPER, CASES[4], CASES[5], CASES[9]], ids=str)
def test_the_same_inputs_give_the_same_bits(case):
    """Also where the caches hold something else: what is read before it is there then shows."""
    inputs = on_gpu(case._replace(num_layers=9))
    sweep = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
    first = results(blocks, inputs, case.plan)
    for i in range(REPEATS):
        if i % 2:
            sweep.random_()
        again = results(blocks, inputs, case.plan)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True)), f"repeat {i}"


def test_a_gpu_shared_with_other_processes():
    """Taken from the kernels at any moment, and given back: a barrier that one side passes late must not hold them up."""
    processes = [start(work, 8.0) for work in (persistent_blocks, persistent_blocks, products)]
    try:
        for process in processes:
            process.join(120)
        assert [process.exitcode for process in processes] == [0, 0, 0], "None is one that still runs"
    finally:
        for process in processes:
            process.kill()


@pytest.mark.parametrize("case", [PAPER, CASES[1], CASES[5]], ids=str)
def test_large_activations_stay_finite(case):
    """A stream of size 1,000, scores of 10,000, and a hidden layer of 100, where GELU is flat or straight."""
    inputs = on_gpu(case)
    inputs.weights.w_qkv.mul_(100)
    inputs.weights.w_fc1.mul_(100)
    found = poisoned_results(inputs._replace(x=1e3 * inputs.x), case)
    assert all(tensor.isfinite().all() for tensor in found)


@pytest.mark.parametrize("case", [PAPER, CASES[2]], ids=str)
def test_without_gradients_the_output_is_the_same(case):
    inputs = on_gpu(case)
    kept = blocks(inputs.x, inputs.keep, inputs.weights, case.plan)
    with poisoned_memory("cuda"), torch.no_grad():
        assert torch.equal(blocks(inputs.x, inputs.keep, inputs.weights, case.plan), kept)


def test_cuda_graph_replays_on_new_numbers():
    inputs = on_gpu(PAPER)
    leaves = [leaf.requires_grad_() for leaf in inputs.leaves]

    def step() -> tuple[Tensor, ...]:
        out = blocks(inputs.x, inputs.keep, inputs.weights, PAPER.plan)
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
        expected = results(blocks, new, PAPER.plan)
        assert all(torch.equal(a, b) for a, b in zip(captured, expected, strict=True))


@pytest.mark.parametrize("began_with", ["fused", "persistent"])
def test_a_resumed_run_keeps_its_kernels(began_with, small, synthetic_splits):
    values = {"model.width": 192, "model.num_heads": 12, "train.precision": "bf16"}
    config = override(small, values | {"train.kernels": began_with})
    trainer = Trainer(config, synthetic_splits, torch.device("cuda", 0), SilentReporter())
    assert trainer.kernels == began_with
    progress = Progress(1, 0, 2.0, trainer.kernels)
    resumed = Trainer(
        override(config, {"train.kernels": "auto"}), synthetic_splits, torch.device("cuda", 0), SilentReporter()
    )
    assert resumed.kernels == "persistent"
    keep_kernels(resumed, progress.kernels)
    assert resumed.kernels == began_with
    assert resumed.model.block_kernels(torch.device("cuda", 0), torch.bfloat16).name == began_with


OVERLAPPING = {"model.patch_size": 8, "model.patch_stride": 4}
TRAINED = [
    {},
    OVERLAPPING | {"model.activation": "gelu_tanh"},
    OVERLAPPING | {"model.pool": "mean", "model.num_cls_tokens": 0},
    {"model.pool": "mean", "model.num_cls_tokens": 0},
    {"model.num_cls_tokens": 2, "model.k_rank": 16, "model.layer_scale": 0.1},
    {"model.block_repeats": 2},
]
"""The paper's model, 50, 49 and 64 tokens, what is folded, and blocks that are applied twice."""
STEPS = 4


def started(splits, kernels: str, values: dict) -> Trainer:
    """The paper's recipe with few blocks, before its first step."""
    few = {"batch_size": 64, "model.depth": 3, "model.drop_path": 0.3, "schedule.passes": 4, "train.kernels": kernels}
    few |= {"schedule.warmup_passes": 0, "train.compile": False}
    trainer = Trainer(override(recipe("paper"), few | values), splits, torch.device("cuda", 0), SilentReporter())
    assert trainer.kernels == kernels
    trainer.step.set_chunk(trainer.chunks.load(0, 0, trainer.loader.chunk_steps))
    return trainer


def losses(trainer: Trainer) -> Tensor:
    """The losses of the first steps."""
    for _ in range(STEPS):
        trainer.step()
    return trainer.step.losses[:STEPS].cpu()


@pytest.mark.parametrize("values", TRAINED, ids=str)
def test_training_with_either_kind_of_kernels(values, synthetic_splits):
    ours = losses(started(synthetic_splits, "persistent", values))
    torch.testing.assert_close(ours, losses(started(synthetic_splits, "fused", values)), rtol=3e-2, atol=0)
    again = losses(started(synthetic_splits, "persistent", values))
    assert torch.equal(ours, again), "the same seed gives the same bits"


@pytest.mark.parametrize("values", TRAINED, ids=str)
def test_a_steps_gradients_with_and_without_the_kernels(values, synthetic_splits):
    """In bf16 against plain PyTorch in fp32; rounding to bf16 alone makes errors of up to 0.012 here."""
    found = first_gradients(started(synthetic_splits, "persistent", values))
    wanted = first_gradients(started(synthetic_splits, "reference", values | {"train.precision": "fp32"}))
    assert_small(gradient_errors(found, wanted), 5e-2)
