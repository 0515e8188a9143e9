"""The other four parts that can be your own, each as short as it gets; docs/own-idea.md says what they must do."""

import torch
from torch import nn

from pocketvit.model import make_attention
from pocketvit.optim.capturable import CapturableOptimizer, descend


class ParallelBlock(nn.Module):
    """model.block: attention and MLP side by side instead of one after the other."""

    def __init__(self, config, rotary):
        super().__init__()
        self.norm = nn.LayerNorm(config.width)
        self.attn = make_attention(config, rotary)
        self.mlp = nn.Sequential(
            nn.Linear(config.width, config.hidden_width), nn.GELU(), nn.Linear(config.hidden_width, config.width)
        )

    def forward(self, x, keep=None):
        y = self.norm(x)
        attn, mlp = self.attn(y), self.mlp(y)  # (B, N, D)
        if keep is not None:
            attn, mlp = (branch * k[:, None, None].to(x.dtype) for branch, k in zip((attn, mlp), keep, strict=True))
        return x + attn + mlp


class SignSGD(CapturableOptimizer):
    """optim.name: step by the sign of a running mean of the gradients."""

    def __init__(self, groups, config):
        super().__init__(groups, lr=0.0, weight_decay=config.weight_decay)

    def _update(self, params, grads, group):
        means = self._buffers(params, "mean")
        torch._foreach_lerp_(means, grads, 0.1)
        descend(params, torch._foreach_sign(means), group["lr"], group["weight_decay"])


def dim(images, draws):
    """augment.policy: make one image in four darker, by up to half."""
    darker = (draws[:, 0] < 0.25) * draws[:, 1] / 2  # (B,)
    return (images * (1 - darker)[:, None, None, None]).to(torch.uint8)


def square(progress):
    """schedule.name: fall fast at first and slowly at the end."""
    return (1 - progress) ** 2
