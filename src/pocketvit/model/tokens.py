"""From an image to tokens: patches, CLS tokens, registers, positions.

Shapes: B batch, C channels, H W pixels, P patches, T special tokens (CLS, then registers), N = T + P tokens, D width,
p patch side.

Sources: Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929; several CLS tokens: Wu 2025, "Powerful Design of
Small Vision Transformer on CIFAR10"; registers: Darcet et al. 2023, https://arxiv.org/abs/2309.16588
"""

from typing import assert_never

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pocketvit.config import ModelConfig
from pocketvit.config.checks import describe_size
from pocketvit.errors import InputError
from pocketvit.model.positions import sincos_table

CHANNELS = 3  # red, green, blue: all images are converted when they are read


class PatchEmbedding(nn.Module):
    """Cut the image into squares and project each to a token.

    The weight has a convolution's shape, (D, C, p, p), and default init. Patches without overlap are a
    matrix product, which is faster; overlapping ones are a convolution without padding.

    Args:
        image_size: (H, W), pixels.
    Raises:
        InputError: the patches do not tile the image.
    """

    def __init__(self, config: ModelConfig, image_size: tuple[int, int]) -> None:
        super().__init__()
        p, stride = config.patch_size, config.patch_stride or config.patch_size
        if any(side < p or (side - p) % stride for side in image_size):
            raise InputError(
                f"model.patch_size={p}"
                + (f" with model.patch_stride={stride} does not tile" if stride != p else " does not divide")
                + f" images of {describe_size(image_size)}; choose another one, or set data.resize"
            )
        self.patch_size, self.stride = p, stride
        self.grid = ((image_size[0] - p) // stride + 1, (image_size[1] - p) // stride + 1)
        self.proj = nn.Conv2d(CHANNELS, config.width, kernel_size=p, stride=stride)

    @property
    def num_patches(self) -> int:
        """P."""
        return self.grid[0] * self.grid[1]

    def forward(self, images: Tensor, lead: int = 0) -> Tensor:
        """Project the patches of images (B, C, H, W), row by row, after `lead` zero tokens, without the bias.

        Returns:
            (B, lead + P, D).
        """
        if self.stride != self.patch_size:
            x = F.conv2d(images, self.proj.weight, stride=self.stride).flatten(2).transpose(1, 2)  # (B, P, D)
            return F.pad(x, (0, 0, lead, 0))
        (rows, columns), p = self.grid, self.patch_size
        x = images.unflatten(3, (columns, p)).unflatten(2, (rows, p))  # (B, C, rows, p, columns, p)
        x = x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # (B, P, C·p·p)
        return F.linear(F.pad(x, (0, 0, lead, 0)), self.proj.weight.flatten(1))


STEMS = {"patches": PatchEmbedding}
"""From images to patch tokens, by `model.stem`: constructed and used like `PatchEmbedding`, with `proj.bias`."""


class Tokens(nn.Module):
    """CLS tokens, registers and patch tokens, in this order, with their positions.

    Args:
        image_size: (H, W), pixels.
    """

    positions: Tensor | None
    """Added to the tokens, (1, N, D)."""

    def __init__(self, config: ModelConfig, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.patches = STEMS[config.stem](config, image_size)
        self.num_cls = config.num_cls_tokens if config.pool == "cls" else 0
        self.num_special = self.num_cls + config.num_registers
        if self.num_cls:
            self.cls = nn.Parameter(torch.zeros(1, self.num_cls, config.width))
        if config.num_registers:
            self.registers = nn.Parameter(torch.zeros(1, config.num_registers, config.width))
        match config.positions:
            case "learned":
                self.positions = nn.Parameter(torch.zeros(1, self.num_tokens, config.width))  # (1, N, D)
            case "sincos":
                table = sincos_table(self.patches.grid, self.num_special, config.width)
                self.register_buffer("positions", table, persistent=False)
            case "rope" | "none":
                self.positions = None
            case other:
                assert_never(other)

    @property
    def num_tokens(self) -> int:
        """N."""
        return self.num_special + self.patches.num_patches

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (B, C, H, W) into tokens (B, N, D)."""
        x = self.patches(images, lead=self.num_special)
        # Under autocast the sum, and with it the residual stream, stays in bf16.
        return x + self.offsets().to(x.dtype)

    def offsets(self) -> Tensor:
        """The part common to all images: CLS tokens, registers and the patches' bias, with positions, (1, N, D).

        Adding these first leaves one sum over the batch for all their gradients.
        """
        special = [getattr(self, name) for name in ("cls", "registers") if hasattr(self, name)]
        bias = self.patches.proj.bias
        assert bias is not None  # a convolution has one unless told otherwise
        offsets = torch.cat([*special, bias.expand(1, self.patches.num_patches, -1)], dim=1)  # (1, N, D)
        return offsets if self.positions is None else offsets + self.positions
