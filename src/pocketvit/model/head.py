"""From the last tokens to logits: pooling, and the head of the pooled tokens.

Shapes: B batch, T CLS tokens, P patches, N tokens, D width, K classes.
"""

import torch
from torch import Tensor, nn

from pocketvit.config import ModelConfig
from pocketvit.model.tokens import Tokens


class ClsPool(nn.Module):
    """The concatenated CLS tokens."""

    def __init__(self, _config: ModelConfig, tokens: Tokens) -> None:
        super().__init__()
        self.num_cls = tokens.num_cls

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, N, D) -> (B, T·D)."""
        return x[:, : self.num_cls].flatten(1)


class MeanPool(nn.Module):
    """The mean of the patch tokens."""

    def __init__(self, _config: ModelConfig, tokens: Tokens) -> None:
        super().__init__()
        self.num_special = tokens.num_special

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, N, D) -> (B, D)."""
        return x[:, self.num_special :].mean(dim=1)


class AttentionPool(nn.Module):
    """A mean of the patch tokens, weighted by learned scores.

    Source: Hassani et al. 2021 (CCT's SeqPool), https://arxiv.org/abs/2104.05704
    """

    def __init__(self, config: ModelConfig, tokens: Tokens) -> None:
        super().__init__()
        self.num_special = tokens.num_special
        self.score = nn.Linear(config.width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, N, D) -> (B, D)."""
        x = x[:, self.num_special :]  # (B, P, D)
        weights = self.score(x).float().softmax(dim=1)  # (B, P, 1)
        return (weights * x).sum(dim=1)


class ClsPerClassPool(ClsPool):
    """The CLS tokens, one for each class."""

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, N, D) -> (B, K, D)."""
        return x[:, : self.num_cls]


POOLS = {"cls": ClsPool, "cls_per_class": ClsPerClassPool, "mean": MeanPool, "attention": AttentionPool}


class OwnTokenHead(nn.Linear):
    """Read the logit of each class from its own CLS token, by weights of its own: as many as of the linear head.

    Source: Xu et al. 2022 and 2024 (MCTformer, MCTformer+), https://arxiv.org/abs/2203.02891 and 2308.03005
    Differs: they have no last norm and read the mean of the channels. Here the last norm stays, as in all models; since a
    normalized token's mean is 0, the weights are learned, which is an option of MCTformer's code. Their second score, from
    patch tokens, and their losses are for segmentation and are left out.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, K, D) -> logits (B, K)."""
        return torch.einsum("bkd,kd->bk", x, self.weight) + self.bias


HEADS = {
    "linear": lambda channels, _, num_classes: nn.Linear(channels, num_classes),
    "mlp": lambda channels, width, num_classes: nn.Sequential(
        nn.Linear(channels, width), nn.ReLU(), nn.Linear(width, num_classes)
    ),
}
"""The classifier on the pooled tokens: linear, or the paper's Eq. 4 with a hidden layer as wide as a token."""
