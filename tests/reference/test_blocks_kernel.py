"""A stack of blocks: folding against the model's own blocks, the twin and the kernels against float64.

Triton reads TRITON_INTERPRET when it is first imported, so the tests marked `in_interpreter` are skipped here and run
by `test_kernels_in_the_interpreter` in a process of their own.
"""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from block_cases import Case, assert_small, random_inputs, relative_errors, results
from interpreter import assert_green_in_the_interpreter, in_interpreter, natively
from torch import Tensor
from training_cases import first_gradients, gradient_errors

from pocketvit.config import ModelConfig, override
from pocketvit.data import Split, Splits
from pocketvit.errors import InputError
from pocketvit.kernels.blocks import blocks_reference, max_images, run_blocks, supported
from pocketvit.kernels.fold import FoldedNorm
from pocketvit.model import ViT
from pocketvit.model.folded import fold, plan_of
from pocketvit.model.mixers.standard import Attention
from pocketvit.recipes import recipe
from pocketvit.training.progress import SilentReporter
from pocketvit.training.trainer import Trainer

CASES = [
    Case(3, 45, 32, 1, 2, 1),
    Case(2, 33, 64, 4, 1, 33, num_layers=1, centred=False, tanh=True),
    Case(2, 13, 96, 3, 4, 2, num_layers=1, centred=False),
    Case(2, 9, 192, 12, 1, 1, num_layers=1, tanh=True),
    Case(5, 5, 32, 2, 1, 5),
    Case(2, 64, 32, 1, 1, 64, num_layers=1),
    Case(2, 9, 64, 4, 2, 1, num_layers=1, num_kv_heads=2),
    Case(3, 7, 96, 4, 1, 7, num_layers=1, num_kv_heads=1, tanh=True),
    Case(3, 9, 32, 4, 2, 1),
    Case(2, 33, 64, 8, 1, 33, num_layers=1, num_kv_heads=2, centred=False),
]
"""Tiles take 64 or 128 tokens: several, one exactly full, all others with a rest."""

SMALL = CASES[4]

FOLDED = {
    "plain": {},
    "rmsnorm": {"norm": "rmsnorm"},
    "layer scale": {"layer_scale": 0.1},
    "tanh": {"activation": "gelu_tanh"},
    "grouped-query": {"num_kv_heads": 2},
    "multi-query": {"num_kv_heads": 1, "norm": "rmsnorm", "layer_scale": 0.1},
    "q": {"q_rank": 6},
    "k": {"k_rank": 6},
    "v": {"v_rank": 6},
    "qk": {"q_rank": 6, "k_rank": 5},
    "kv": {"k_rank": 6, "v_rank": 5},
    "qkv": {"q_rank": 6, "k_rank": 5, "v_rank": 4, "num_kv_heads": 2},
    "joint": {"kv_rank_shared": 7},
    "joint-q": {"kv_rank_shared": 7, "q_rank": 6, "num_kv_heads": 1},
    "3 CLS": {"num_cls_tokens": 3},
    "registers": {"num_registers": 2, "num_cls_tokens": 2},
    "mean": {"pool": "mean", "num_registers": 1},
    "attention pool": {"pool": "attention"},
}


def model_of(width: int, **choices) -> ViT:
    """Two blocks on 17 or so tokens, with weights large enough to matter."""
    generator = torch.Generator().manual_seed(0)
    config = ModelConfig(width=width, num_heads=width // 16, depth=2, patch_size=8, **choices)
    model = ViT(config, generator=generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


def plain_blocks(x: Tensor, keep: Tensor | None, model: ViT) -> Tensor:
    """The model's blocks one after the other."""
    for i, block in enumerate(model.blocks):
        x = block(x, None if keep is None else keep[i])
    return x


@natively
@pytest.mark.long
def test_kernels_in_the_interpreter():
    assert_green_in_the_interpreter(
        "reference/test_blocks_kernel.py",
        "reference/test_fold_kernel.py",
        "property/test_fold_kernel_property.py",
        "unit/training/test_compiling.py",
        "property/test_blocks_kernel_property.py",
    )


# ---------------------------------------------------------------- folding and the twin


@natively
@pytest.mark.parametrize("dropped", [False, True], ids=["all kept", "some dropped"])
@pytest.mark.parametrize("choice", FOLDED)
def test_folded_blocks_equal_the_models_own(choice, dropped):
    model = model_of(64, **FOLDED[choice]).double()
    plan = plan_of(model.config, model.tokens.num_tokens)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, model.tokens.num_tokens, 64, dtype=torch.float64, generator=generator).requires_grad_()
    keep = 1.25 * torch.randint(2, (2, 2, 3), generator=generator) if dropped else None
    out, expected = blocks_reference(x, keep, fold(model.blocks), plan), plain_blocks(x, keep, model)[:, : plan.taken]
    dout = torch.randn(out.shape, dtype=torch.float64, generator=generator)
    leaves = {"x": x} | dict(model.blocks.named_parameters())
    found, wanted = (torch.autograd.grad(y, list(leaves.values()), dout) for y in (out, expected))
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    for name, a, b in zip(leaves, found, wanted, strict=True):
        # The gradient of a key's bias is zero, so it is measured by the size of all.
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}")


@natively
@pytest.mark.parametrize("case", CASES, ids=str)
def test_twin(case):
    inputs = random_inputs(case)
    exact = results(blocks_reference, inputs, case.plan, exact=True)
    assert_small(relative_errors(results(blocks_reference, inputs, case.plan), exact), 1e-5)


# ---------------------------------------------------------------- the kernels

fused = partial(run_blocks, kernels="fused")


@in_interpreter
@pytest.mark.parametrize("case", CASES, ids=str)
def test_fused(case, poisoned):
    inputs = random_inputs(case)
    exact = results(blocks_reference, inputs, case.plan, exact=True)
    assert_small(relative_errors(results(fused, inputs, case.plan), exact), 1e-5)


@in_interpreter
def test_an_image_that_skips_everything_stays_as_it_is(poisoned):
    inputs = random_inputs(SMALL)
    inputs.keep[:, :, 1] = 0.0
    assert torch.equal(fused(inputs.x, inputs.keep, inputs.weights, SMALL.plan)[1], inputs.x[1])


@in_interpreter
def test_strided_inputs_and_no_keep(poisoned):
    inputs = random_inputs(SMALL)
    x = inputs.x.transpose(0, 1).contiguous().transpose(0, 1)
    keep = inputs.keep.repeat_interleave(2, dim=2)[..., ::2]
    assert not x.is_contiguous() and not keep.is_contiguous()
    for given in (keep, None):
        found, twin = (f(x, given, inputs.weights, SMALL.plan) for f in (fused, blocks_reference))
        torch.testing.assert_close(found, twin)


@in_interpreter
def test_gradient_of_a_broadcast_loss():
    """The gradient of a sum has stride 0 everywhere."""
    case = SMALL._replace(num_layers=1)
    inputs = random_inputs(case)
    broadcast = inputs._replace(dout=inputs.dout[:1, :1, :1].expand_as(inputs.dout))
    exact = results(blocks_reference, broadcast, case.plan, exact=True)
    assert_small(relative_errors(results(fused, broadcast, case.plan), exact), 1e-5)


@in_interpreter
@pytest.mark.parametrize("tanh", [False, True])
@pytest.mark.filterwarnings("ignore:overflow encountered in exp2")  # an infinity is what it takes here
def test_large_activations_stay_finite(tanh, poisoned):
    """A stream of size 1,000, scores of 10,000, and a hidden layer of 100, where GELU is flat or straight."""
    case = SMALL._replace(tanh=tanh, num_layers=1)
    inputs = random_inputs(case)
    inputs.weights.w_qkv.mul_(100)
    inputs.weights.w_fc1.mul_(100)
    found = results(fused, inputs._replace(x=1e3 * inputs.x), case.plan)
    assert all(tensor.isfinite().all() for tensor in found)


@in_interpreter
def test_without_gradients_one_layers_memory_serves_all(poisoned, monkeypatch):
    from pocketvit.kernels import blocks_ops as ops

    inputs, numbers, make = random_inputs(SMALL), [], ops.Saved.new

    def counted(*arguments):
        saved = make(*arguments)
        numbers.append(sum(tensor.numel() for tensor in saved))
        return saved

    monkeypatch.setattr(ops.Saved, "new", counted)
    kept = fused(inputs.x.requires_grad_(), inputs.keep, inputs.weights, SMALL.plan)
    with torch.no_grad():
        lean = fused(inputs.x, inputs.keep, inputs.weights, SMALL.plan)
    assert torch.equal(kept, lean)
    assert numbers[0] == SMALL.num_layers * numbers[1]


@in_interpreter
@pytest.mark.parametrize(
    "choices", [{"num_cls_tokens": 2, "q_rank": 4, "layer_scale": 0.1}, {"pool": "mean", "block_repeats": 2}], ids=str
)
def test_a_whole_model_gives_the_same(choices, poisoned):
    model = model_of(32, mlp_ratio=1, **choices)
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(3, 3, 32, 32, generator=generator)
    keep = random_inputs(Case(3, 1, 32, 2, 1, 1, num_layers=model.config.num_layers)).keep
    found = {}
    for kernels in ("fused", "reference"):
        model.use_kernels(kernels)
        reason = model.block_kernels(images.device, images.dtype).reason
        assert reason == ("train.kernels=reference" if kernels == "reference" else None)
        logits = model(images, keep)  # (B, K)
        loss = (logits * torch.linspace(-1, 1, 10)).sum()
        found[kernels] = [logits.detach(), *torch.autograd.grad(loss, list(model.parameters()))]
        found[kernels].append(model.features(images, keep).detach())  # (B, N, D), of all tokens
    torch.testing.assert_close(found["fused"], found["reference"], rtol=1e-4, atol=1e-5)


@in_interpreter
def test_a_lost_gradient_of_a_norm_is_seen_in_a_training_step(tmp_path, monkeypatch):
    """The comparison that the GPU's tests of training make, on a step of the interpreted kernels in float32."""
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (16, 16, 16, 3), dtype=np.uint8), rng.integers(0, 10, 16))
    splits = Splits(split, None, split, tuple("abcdefghij"), "synthetic", ())
    small = {"batch_size": 4, "model.width": 32, "model.depth": 2, "model.num_heads": 2, "model.mlp_ratio": 1}
    small |= {"model.patch_size": 8, "augment.policy": "none", "schedule.passes": 1, "schedule.warmup_passes": 0}
    small |= {"out": tmp_path, "train.device": "cpu", "model.k_rank": 4}

    def gradients(kernels: str) -> dict[str, Tensor]:
        config = override(recipe("paper"), small | {"train.kernels": kernels})
        trainer = Trainer(config, splits, torch.device("cpu"), SilentReporter())
        trainer.step.set_chunk(trainer.chunks.load(0, 0, trainer.loader.chunk_steps))
        return first_gradients(trainer)

    def lossy(ctx: Any, *douts: Tensor) -> tuple[Tensor, ...]:
        dw, db, dfactor, doffset = backward(ctx, *douts)
        return dw, db, torch.zeros_like(dfactor), doffset

    wanted = gradients("reference")
    errors = gradient_errors(gradients("fused"), wanted)
    assert_small(errors, 1e-4)
    assert errors["blocks.0.norm1.weight"] > 0, "the kernels ran"
    backward = FoldedNorm.backward
    monkeypatch.setattr(FoldedNorm, "backward", staticmethod(lossy))
    errors = gradient_errors(gradients("fused"), wanted)
    lost = {name for name, error in errors.items() if error == 1}
    assert lost == {f"blocks.{i}.norm{j}.weight" for i in range(2) for j in (1, 2)}
    with pytest.raises(AssertionError, match="norm1.weight"):
        assert_small(errors, 5e-2)


# ---------------------------------------------------------------- what is refused


@natively
def test_the_cpu_runs_the_twin_and_says_so():
    inputs = random_inputs(SMALL)
    assert "not on an NVIDIA GPU" in supported(inputs.x.device, torch.bfloat16, 5, SMALL.plan)
    arguments = inputs.x, inputs.keep, inputs.weights, SMALL.plan
    assert torch.equal(run_blocks(*arguments), run_blocks(*arguments, kernels="reference"))
    with pytest.raises(InputError) as refused:
        run_blocks(*arguments, kernels="fused")
    text = str(refused.value)
    assert "kernels='fused' is not supported for these blocks: the tensors are not on an NVIDIA GPU; use auto" == text


@natively
@pytest.mark.parametrize(
    ("device", "major", "dtype", "width", "reason"),
    [
        ("cpu", 9, torch.float32, 48, "the tensors are not on an NVIDIA GPU"),
        ("cuda", 8, torch.float32, 48, "the kernels are made for GPUs of compute capability 9.x"),
        ("cuda", 9, torch.float32, 48, "the fused blocks want bfloat16 tokens (train.precision=bf16)"),
        ("cuda", 9, torch.float16, 32, "the fused blocks want bfloat16 tokens (train.precision=bf16)"),
        ("cuda", 9, torch.bfloat16, 48, "a width of 48 is not a multiple of 32 up to 256"),
    ],
    ids=str,
)
def test_the_gpu_is_asked_first_then_the_dtype_then_the_shapes(device, major, dtype, width, reason, monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: SimpleNamespace(major=major))
    assert supported(torch.device(device), dtype, 5, SMALL._replace(width=width).plan) == reason
    model = model_of(width, positions="rope")
    assert model.block_kernels(torch.device(device), dtype).reason == reason


@natively
def test_the_papers_model_takes_57_thousand_images():
    plan = plan_of(ModelConfig(), 65)
    assert max_images(65, plan) == 2**31 // (65 * 3 * 192) == 57_358
    assert max_images(65, replace(plan, hidden_width=768)) == 2**31 // (65 * 768)


@in_interpreter
@pytest.mark.parametrize("kernels", ["auto", "fused"])
def test_more_images_than_32_bits_count_are_refused(kernels, monkeypatch):
    inputs = random_inputs(SMALL)
    most = max_images(SMALL.N, SMALL.plan)
    many = inputs.x[:1].expand(most + 1, -1, -1)  # takes no memory
    with pytest.raises(
        InputError, match=f"a batch of {most + 1:,} images .* with 5 tokens per image, at most {most:,}"
    ):
        run_blocks(many, None, inputs.weights, SMALL.plan, kernels=kernels)
    monkeypatch.setattr("pocketvit.kernels.blocks.MAX_NUMBERS", SMALL.B * SMALL.N * 96)
    assert max_images(SMALL.N, SMALL.plan) == SMALL.B
    assert run_blocks(inputs.x, None, inputs.weights, SMALL.plan, kernels=kernels).isfinite().all()


@natively
def test_unknown_kernels():
    inputs = random_inputs(SMALL)
    with pytest.raises(InputError, match="kernels='fast': must be one of auto, persistent, fused, reference"):
        run_blocks(inputs.x, None, inputs.weights, SMALL.plan, kernels="fast")


@in_interpreter
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"width": 48, "num_heads": 3}, "a width of 48 is not a multiple of 32 up to 256"),
        ({"width": 288, "num_heads": 9}, "a width of 288 is not a multiple of 32 up to 256"),
        ({"mlp_ratio": 1.5}, "the MLP's hidden width, 48.0, is not a multiple of the width, 32"),
        ({"num_heads": 8}, "a head dim of 4 is not a multiple of 8 from 8 to 64"),
        ({"N": 258}, "258 tokens are more than 257"),
    ],
    ids=str,
)
def test_what_is_not_supported_says_why(changes, reason):
    case = SMALL._replace(**changes)
    assert supported(torch.device("cpu"), torch.float32, case.N, case.plan) == reason


class Own(Attention):
    """Attention that the kernels know nothing of."""


@in_interpreter
@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        ({"positions": "rope"}, "model.positions=rope is between"),
        ({"qk_norm": True}, "model.qk_norm is between"),
        ({"mlp_ratio": 2.5}, "hidden width, 80, is not a multiple"),
        ({"width": 48}, "a width of 48 is not a multiple of 32"),
    ],
    ids=str,
)
def test_models_that_cannot_be_fused_say_why(choices, reason):
    model = model_of(**{"width": 32} | choices)
    assert reason in model.block_kernels(torch.device("cpu"), torch.float32).reason
    model.use_kernels("fused")
    assert model(torch.zeros(2, 3, 32, 32)).isfinite().all()


@in_interpreter
def test_attention_of_the_users_own_is_not_fused():
    model = model_of(32)
    for block in model.blocks:
        block.attn = Own(model.config)
    assert model.block_kernels(torch.device("cpu"), torch.float32).reason == "the blocks are the user's own"
