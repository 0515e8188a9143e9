"""Blocks that are applied several times against a deeper model, whose blocks are copies: their gradients add up."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pocketvit.config import ModelConfig
from pocketvit.kernels.block_weights import BlockNorms, BlockPlan, BlockWeights
from pocketvit.kernels.blocks import blocks_reference
from pocketvit.kernels.fold import fold_norm
from pocketvit.kernels.launch import Choice
from pocketvit.model import ViT
from pocketvit.model.folded import fold_but_norms, repeated
from pocketvit.usercode import Code

DEPTH, TIMES, B = 2, 3, 3
BLOCK = Code.read("my_parts.py:ParallelBlock", Path(__file__).parents[2] / "docs" / "examples")
FOLDED = {
    "plain": {},
    "mean": {"pool": "mean", "num_registers": 1},
    "low rank, LayerScale": {"q_rank": 4, "kv_rank_shared": 5, "layer_scale": 0.5, "num_cls_tokens": 2},
    "multi-query, RMSNorm": {"num_kv_heads": 1, "norm": "rmsnorm", "activation": "gelu_tanh"},
}
OTHERS = {
    "depth-wise, dropout": {"depthwise": 3, "dropout": 0.3},
    "rotary": {"positions": "rope", "qk_norm": True},
    "linear": {"attention": "linear"},
    "sparse": {"attention": "sparse"},
    "the user's own block": {"block": BLOCK},
}
CASES = [(name, "reference") for name in (*FOLDED, *OTHERS)]
CASES += [(name, kernels) for name in FOLDED for kernels in ("fused", "persistent")]


def make(**choices) -> ViT:
    """A model in float64 with weights large enough to matter."""
    generator = torch.Generator().manual_seed(0)
    config = ModelConfig(**{"width": 16, "num_heads": 2, "patch_size": 8, "depth": DEPTH} | choices)
    model = ViT(config, generator=generator).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


def copied(name: str) -> str:
    """Of which tensor the deeper model's tensor is a copy."""
    if not name.startswith("blocks."):
        return name
    _, i, rest = name.split(".", 2)
    return f"blocks.{int(i) // TIMES}.{rest}"


def run(model: ViT) -> tuple[Tensor, dict[str, Tensor]]:
    """The logits with stochastic depth and dropout, and the gradients by name."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(B, 3, 32, 32, dtype=torch.float64, generator=generator)
    keep = 1.25 * (torch.rand(DEPTH * TIMES, 2, B, generator=generator) < 0.8)
    keys = torch.arange(model.config.num_dropouts * B).view(-1, B) if model.config.dropout else None
    logits = model(images, keep, keys)
    named = dict(model.named_parameters())
    weights = torch.randn(logits.shape, dtype=torch.float64, generator=generator)
    return logits, dict(zip(named, torch.autograd.grad((logits * weights).sum(), [*named.values()]), strict=True))


def in_float64(
    x: Tensor, keep: Tensor | None, weights: BlockWeights, plan: BlockPlan, *, norms: BlockNorms | None, kernels: str
) -> Tensor:
    """`run_blocks` of any kernels: what they compute, norms that they merge included."""
    assert (norms is not None) == (kernels == "persistent")
    if norms is not None:
        w_qkv, b_qkv = fold_norm(weights.w_qkv, weights.b_qkv, norms.factor1, norms.offset1)
        w_fc1, b_fc1 = fold_norm(weights.w_fc1, weights.b_fc1, norms.factor2, norms.offset2)
        weights = weights._replace(w_qkv=w_qkv, b_qkv=b_qkv, w_fc1=w_fc1, b_fc1=b_fc1)
    return blocks_reference(x, keep, weights, plan)


@pytest.mark.parametrize(("name", "kernels"), CASES)
def test_equals_a_deeper_model_of_copies(name, kernels, monkeypatch):
    choices = (FOLDED | OTHERS)[name]
    model = make(**choices, block_repeats=TIMES)
    copies = make(**choices, depth=DEPTH * TIMES)
    state = model.state_dict()
    copies.load_state_dict({name: state[copied(name)] for name in copies.state_dict()})
    wanted, parts = run(copies)
    monkeypatch.setattr(ViT, "block_kernels", lambda *_: Choice(kernels, None))
    monkeypatch.setattr("pocketvit.model.vit.run_blocks", in_float64)
    found, gradients = run(model)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    for part, gradient in parts.items():
        gradients[copied(part)] = gradients[copied(part)] - gradient
    for left in gradients.values():
        torch.testing.assert_close(left, torch.zeros_like(left), rtol=0, atol=1e-9)


def test_only_the_last_application_leaves_out_what_nobody_reads():
    model, seen = make(block_repeats=TIMES), []
    for block in model.blocks:
        block.mlp.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    model(torch.zeros(1, 3, 32, 32, dtype=torch.float64))
    assert seen == [17] * (DEPTH * TIMES - 1) + [1]


def test_a_model_keeps_its_parameters_and_its_initial_weights():
    models = [ViT(ModelConfig(width=16, num_heads=2, depth=DEPTH, init="mimetic", block_repeats=times),
                  generator=torch.Generator().manual_seed(0)) for times in (1, TIMES)]  # fmt: skip
    assert models[0].num_params == models[1].num_params
    states = [model.state_dict() for model in models]
    assert all(torch.equal(*pair) for pair in zip(*(state.values() for state in states), strict=True))
    assert list(states[0]) == list(states[1])


def test_once_is_the_same_tensors():
    """So an optimizer's memory for their gradients is still found, and no bit changes."""
    for layers in fold_but_norms(make().blocks):
        assert repeated(layers, 1) is layers
