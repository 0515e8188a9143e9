"""Which kernels run the blocks with the parts of other papers, as if they ran on the CPU."""

import pytest
import torch

from pocketvit.config import ModelConfig
from pocketvit.kernels.launch import Choice
from pocketvit.model import ViT
from pocketvit.model.mixers import MIXERS

FASTEST = Choice("fused", "the tensors are not on an NVIDIA GPU")
"""The persistent kernels have no reason but the device, which they ask for last."""
CHOICES = {
    "plain": ({}, FASTEST),
    "repeated blocks": ({"block_repeats": 2}, FASTEST),
    "shifted": ({"stem": "shifted"}, FASTEST),
    "mimetic": ({"init": "mimetic"}, FASTEST),
    "conv": ({"stem": "conv"}, FASTEST),
    "cls_per_class": (
        {"pool": "cls_per_class"},
        Choice("fused", "the persistent kernels are made for 49 to 72 tokens, not 74"),
    ),
    "depthwise": ({"depthwise": 3}, Choice("reference", "the kernels do not support model.depthwise=3")),
    "dropout": ({"dropout": 0.5}, Choice("reference", "the kernels do not support model.dropout=0.5")),
}
CHOICES |= {
    name: ({"attention": name}, Choice("reference", f"the kernels do not support model.attention={name}"))
    for name, mixer in MIXERS.items()
    if mixer.KERNELS is None
}


@pytest.mark.parametrize("name", CHOICES)
def test_what_leaves_the_blocks_alone_stays_on_their_kernels(name, monkeypatch):
    pytest.importorskip("triton")
    for module in ("launch", "blocks", "attention"):
        monkeypatch.setattr(f"pocketvit.kernels.{module}.INTERPRETED", True)
    choices, expected = CHOICES[name]
    assert ViT(ModelConfig(**choices)).block_kernels(torch.device("cpu"), torch.float32) == expected


@pytest.fixture
def uncounted():
    """Compilations in other tests, and of these in others, count towards the compiler's limit per function."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("uncounted")
@pytest.mark.parametrize("name", CHOICES)
def test_each_is_compiled_in_one_piece_with_its_backward_pass(name):
    """As in training: under bf16 autocast, with stochastic depth, and with dropout if it is chosen."""
    choices, _ = CHOICES[name]
    config = ModelConfig(**{"width": 32, "num_heads": 2, "depth": 1} | choices)
    model = ViT(config, image_size=(16, 16), generator=torch.Generator().manual_seed(0))
    images, keep = torch.randn(2, 3, 16, 16), torch.tensor([[[2.0, 0.0], [0.0, 2.0]]]).repeat(config.num_layers, 1, 1)
    dropout = torch.arange(2 * config.num_dropouts).view(-1, 2) if config.dropout else None
    found = []
    for call in (torch.compile(model, fullgraph=True, dynamic=False, backend="aot_eager"), model):
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            logits = call(images, keep, dropout)
        found.append((logits, *torch.autograd.grad(logits.float().square().sum(), list(model.parameters()))))
    for compiled, plain in zip(*found, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=2e-2, atol=2e-3)
    assert all(gradient.isfinite().all() for gradient in found[0])
