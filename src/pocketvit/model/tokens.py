"""From an image to a row of tokens: patches, CLS tokens, positions.

Shapes: B batch, C channels, H W pixels, P patches, T CLS tokens, N = T + P tokens, D width, p patch side.

Source: Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929; several CLS tokens: Wu 2025, "Powerful Design of
Small Vision Transformer on CIFAR10".
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pocketvit.config import ModelConfig
from pocketvit.errors import InputError


class PatchEmbedding(nn.Module):
    """Cut the image into squares and project each to a token.

    The weight has a convolution's shape, (D, C, p, p), and a convolution's default init; patches that do not overlap
    are a plain matrix product, which is faster.

    Args:
        config: the model's configuration.
        image_size: (H, W), pixels.
        in_channels: C.
    Raises:
        InputError: the patch size does not divide the image.
    """

    def __init__(self, config: ModelConfig, image_size: tuple[int, int], in_channels: int) -> None:
        super().__init__()
        p = config.patch_size
        if any(side % p for side in image_size):
            raise InputError(
                f"model.patch_size={p} does not divide the image size {image_size[0]}x{image_size[1]}; "
                "choose a divisor of both sides or set data.resize"
            )
        self.patch_size = p
        self.grid = (image_size[0] // p, image_size[1] // p)
        self.proj = nn.Conv2d(in_channels, config.width, kernel_size=p, stride=p)

    @property
    def num_patches(self) -> int:
        """P."""
        return self.grid[0] * self.grid[1]

    def forward(self, images: Tensor) -> Tensor:
        """Project the patches of images (B, C, H, W) to tokens (B, P, D), row by row."""
        (rows, columns), p = self.grid, self.patch_size
        x = images.unflatten(3, (columns, p)).unflatten(2, (rows, p))  # (B, C, rows, p, columns, p)
        x = x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # (B, P, C·p·p)
        return F.linear(x, self.proj.weight.flatten(1), self.proj.bias)  # (B, P, D)


class Tokens(nn.Module):
    """Patch tokens behind the CLS tokens, with a learned position added to each.

    Args:
        config: the model's configuration.
        image_size: (H, W), pixels.
        in_channels: C.
    """

    def __init__(self, config: ModelConfig, image_size: tuple[int, int], in_channels: int) -> None:
        super().__init__()
        self.patches = PatchEmbedding(config, image_size, in_channels)
        self.num_cls_tokens = config.num_cls_tokens if config.pool == "cls" else 0
        num_tokens = self.num_cls_tokens + self.patches.num_patches
        if self.num_cls_tokens:
            self.cls = nn.Parameter(torch.zeros(1, self.num_cls_tokens, config.width))  # (1, T, D)
        self.positions = nn.Parameter(torch.zeros(1, num_tokens, config.width))  # (1, N, D)

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (B, C, H, W) into tokens (B, N, D), the CLS tokens first."""
        x = self.patches(images)  # (B, P, D)
        if self.num_cls_tokens:
            cls = self.cls.to(x.dtype).expand(len(x), -1, -1)  # (B, T, D)
            x = torch.cat([cls, x], dim=1)  # (B, N, D)
        return x + self.positions.to(x.dtype)  # under autocast the residual stream stays in bf16
