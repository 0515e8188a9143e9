"""Which kernels run the blocks with the parts of other papers, as if they ran on the CPU."""

import pytest
import torch

from pocketvit.config import ModelConfig
from pocketvit.kernels.launch import Choice
from pocketvit.model import ViT

FASTEST = Choice("fused", "the tensors are not on an NVIDIA GPU")
"""The persistent kernels have no reason but the device, which they ask for last."""
CHOICES = {
    "plain": ({}, FASTEST),
    "shifted": ({"stem": "shifted"}, FASTEST),
    "mimetic": ({"init": "mimetic"}, FASTEST),
    "conv": ({"stem": "conv"}, FASTEST),
    "cls_per_class": (
        {"pool": "cls_per_class"},
        Choice("fused", "the persistent kernels are made for 49 to 72 tokens, not 74"),
    ),
    "depthwise": ({"depthwise": 3}, Choice("reference", "the kernels do not support model.depthwise=3")),
    "linear": ({"attention": "linear"}, Choice("reference", "the kernels do not support model.attention=linear")),
    "sparse": ({"attention": "sparse"}, Choice("reference", "the kernels do not support model.attention=sparse")),
    "locality": ({"attention": "locality"}, Choice("reference", "the kernels do not support model.attention=locality")),
}


@pytest.mark.parametrize("name", CHOICES)
def test_what_leaves_the_blocks_alone_stays_on_their_kernels(name, monkeypatch):
    pytest.importorskip("triton")
    for module in ("launch", "blocks", "attention"):
        monkeypatch.setattr(f"pocketvit.kernels.{module}.INTERPRETED", True)
    choices, expected = CHOICES[name]
    assert ViT(ModelConfig(**choices)).block_kernels(torch.device("cpu"), torch.float32) == expected
