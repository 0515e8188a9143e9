"""The vision transformer, from normalised pixels to logits.

    tokens  ->  depth × block  ->  norm  ->  pool  ->  head

Shapes: B batch, C channels, H W pixels, P patches, T CLS tokens, N = T + P tokens, D width, K classes, L depth.

Source: Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929; the sizes are those of Wu 2025, "Powerful Design
of Small Vision Transformer on CIFAR10".
"""

import numpy as np
import torch
from torch import Tensor, nn

from pocketvit.config import ModelConfig
from pocketvit.model.block import NORM_EPS, Block
from pocketvit.model.tokens import Tokens


class ViT(nn.Module):
    """A small vision transformer.

    Args:
        config: the choices.
        image_size: (H, W), pixels.
        num_classes: K.
        in_channels: C.
        generator: source of the initial weights, on the CPU; None uses PyTorch's own.
    Raises:
        InputError: the patch size does not divide the image.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        image_size: tuple[int, int] = (32, 32),
        num_classes: int = 10,
        in_channels: int = 3,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.image_size = image_size
        self.tokens = Tokens(config, image_size, in_channels)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.head = nn.Linear(config.width * max(1, self.tokens.num_cls_tokens), num_classes)
        self.init_weights(generator)

    @property
    def num_params(self) -> int:
        """Number of trained parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw the initial weights.

        Linear weights, CLS tokens and positions are truncated normal with std 0.02, biases 0; the patch embedding
        keeps a convolution's default, uniform within ± 1/sqrt(fan in).
        """
        for name, parameter in self.named_parameters():
            if name.startswith("tokens.patches."):
                bound = self.tokens.patches.proj.weight[0].numel() ** -0.5
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
            elif "norm" in name:
                nn.init.constant_(parameter, 1.0 if name.endswith("weight") else 0.0)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.trunc_normal_(parameter, std=0.02, generator=generator)

    def forward(self, images: Tensor, scales: Tensor | None = None) -> Tensor:
        """Classify images.

        Args:
            images: normalised pixels, (B, C, H, W).
            scales: stochastic depth as `drop_path_scales` makes it, (L, 2, B); None keeps every branch.
        Returns:
            logits (B, K).
        """
        x = self.tokens(images)  # (B, N, D)
        for i, block in enumerate(self.blocks):
            x = block(x, None if scales is None else scales[i])  # (B, N, D)
        return self.head(self.pool(x))  # (B, K)

    def pool(self, x: Tensor) -> Tensor:
        """Reduce the last block's tokens (B, N, D) to what the head reads: (B, T·D) for CLS tokens, else (B, D).

        LayerNorm acts on each token alone, so the CLS tokens are taken before it.
        """
        if self.config.pool == "cls":
            return self.norm(x[:, : self.tokens.num_cls_tokens]).flatten(1)  # (B, T·D)
        return self.norm(x).mean(dim=1)  # (B, D)


def drop_path_scales(config: ModelConfig, draws: np.ndarray) -> np.ndarray:
    """What stochastic depth multiplies each branch of each image by.

    Args:
        config: gives the rate of the last block; the rate rises linearly from 0 in the first.
        draws: uniform numbers in [0, 1), (..., L, 2, B).
    Returns:
        0 where a branch is skipped, 1 / (chance to keep it) elsewhere, float32, of the same shape.
    """
    keep = 1 - np.linspace(0, config.drop_path, config.depth, dtype=np.float32)[:, None, None]  # (L, 1, 1)
    return np.where(draws < keep, 1 / keep, 0).astype(np.float32)
