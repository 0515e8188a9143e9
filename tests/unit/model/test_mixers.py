"""The registry of token mixers, and what a mixer may rely on."""

import typing

import pytest
import torch
from torch import nn

from pocketvit.config import ModelConfig
from pocketvit.kernels.block_weights import BlockWeights
from pocketvit.model import ViT, create_model
from pocketvit.model import folded as folding
from pocketvit.model.mixers import MIXERS, Mixer
from pocketvit.model.positions import arranged
from pocketvit.usercode import Code


def test_the_files_are_the_names_that_can_be_chosen():
    names, code = typing.get_args(typing.get_type_hints(ModelConfig)["attention"])
    assert set(MIXERS) == set(typing.get_args(names)) and code is Code


@pytest.mark.parametrize("name", MIXERS)
def test_the_first_tokens_are_those_of_all(name):
    config = ModelConfig(attention=name, width=24, num_heads=2)
    torch.manual_seed(0)
    mixer, x = arranged(MIXERS[name](config, None), (2, 4), 1), torch.randn(2, 9, 24)
    assert mixer(x).shape == x.shape
    torch.testing.assert_close(mixer(x, 3), mixer(x)[:, :3])


@pytest.mark.parametrize("name", MIXERS)
def test_what_tokens_read_by_their_weights_is_what_they_get(name):
    """The pages that show weights rely on it."""
    torch.manual_seed(0)
    mixer, x = (
        arranged(MIXERS[name](ModelConfig(attention=name, width=24, num_heads=2)), (2, 4), 1),
        torch.randn(2, 9, 24),
    )
    weights = mixer.weights(x)
    assert weights.shape == (2, 2, 9, 9)
    torch.testing.assert_close(mixer.read(x, weights), mixer(x))


@pytest.mark.parametrize("name", [name for name, mixer in MIXERS.items() if mixer.KERNELS])
def test_the_twin_of_the_fused_blocks_computes_the_mixer(name):
    model = create_model("paper", attention=name, width=32, num_heads=2, depth=2)
    plan = folding.plan_of(model.config, 5)
    x = torch.randn(2, 5, 32)
    from pocketvit.kernels.blocks import blocks_reference

    weights = folding.fold(model.blocks)
    assert isinstance(weights, BlockWeights)
    expected = x
    for block in model.blocks:
        expected = block(expected)
    torch.testing.assert_close(blocks_reference(x, None, weights, plan), expected[:, : plan.taken])


class Mean(Mixer):
    """Every token reads the mean of all; no kernel knows it."""

    def __init__(self, config, rotary):
        super().__init__(config, rotary)
        self.proj = nn.Linear(config.width, config.width)

    def forward(self, x, taken=None):
        return self.proj(x.mean(dim=1, keepdim=True)).expand(-1, x.shape[1], -1)[:, :taken]


def test_one_without_kernels_needs_nothing_else(monkeypatch):
    monkeypatch.setitem(MIXERS, "mean", Mean)
    config = ModelConfig(width=32, num_heads=2, depth=2)
    object.__setattr__(config, "attention", "mean")
    model = ViT(config)
    assert {type(block.attn) for block in model.blocks} == {Mean}
    choice = model.block_kernels(torch.device("cuda"), torch.bfloat16)
    assert choice == ("reference", "the kernels do not support model.attention=mean")
    model.use_kernels("reference")
    assert model.blocks[0].attn.kernels == "reference"
    images = torch.randn(2, 3, 32, 32)
    compiled = torch.compile(model, fullgraph=True, dynamic=False, backend="eager")
    torch.testing.assert_close(compiled(images), model(images))
    model(images).sum().backward()
    assert all(block.attn.proj.weight.grad is not None for block in model.blocks)
