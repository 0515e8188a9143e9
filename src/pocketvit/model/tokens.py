"""From an image to tokens: patches, CLS tokens, registers, positions.

Shapes: B batch, C channels, H W pixels, P patches, T special tokens (CLS, distillation, registers), N = T + P tokens, k
patches that patch dropout keeps, D width.

Sources: several CLS tokens: Wu 2025, "Powerful Design of Small Vision Transformer on CIFAR10"; registers: Darcet et al.
2023, https://arxiv.org/abs/2309.16588; distillation token: Touvron et al. 2021, https://arxiv.org/abs/2012.12877
"""

from typing import assert_never

import torch
from torch import Tensor, nn

from pocketvit.config import ModelConfig
from pocketvit.model.positions import sincos_table
from pocketvit.model.resize import grid_matrix, resize_matrix
from pocketvit.model.stems import STEMS

POSITIONS = "tokens.positions"  # the name of learned positions in a model
SPECIAL = ("cls", "distilled", "registers")
"""The parameters of tokens that are no patches, in their order; each (1, tokens, D), if there are some."""


class Tokens(nn.Module):
    """CLS tokens, a distillation token, registers and patch tokens, in this order, with their positions.

    Args:
        image_size: (H, W), pixels.
        num_classes: the number of CLS tokens with pool=cls_per_class.
        distilled: with a distillation token.
    """

    positions: Tensor | None
    """Added to the tokens, (1, N, D)."""

    def __init__(
        self, config: ModelConfig, image_size: tuple[int, int], num_classes: int, *, distilled: bool = False
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.smaller: tuple[Tensor, Tensor] | None = None  # in training, matrices that resize images and positions
        self.patches = STEMS[config.stem](config, image_size)
        self.num_cls = {"cls": config.num_cls_tokens, "cls_per_class": num_classes}.get(config.pool, 0)
        self.num_special = self.num_cls + distilled + config.num_registers
        self.num_read = self.num_cls + distilled if self.num_cls else None
        """Tokens that the heads read, from the first; None for all."""
        self.patch_drop = config.patch_drop
        if self.num_cls:
            self.cls = nn.Parameter(torch.zeros(1, self.num_cls, config.width))
        if distilled:
            self.distilled = nn.Parameter(torch.zeros(1, 1, config.width))
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

    @property
    def num_kept(self) -> int:
        """k."""
        return max(1, int(self.patches.num_patches * (1 - self.patch_drop)))

    def drop_patches(self, x: Tensor, draws: Tensor) -> Tensor:
        """Keep the special tokens and k patches of each image: those with the least numbers, in their order.

        Args:
            x: tokens, (B, N, D).
            draws: uniform numbers, (B, P of the whole images).
        Returns:
            (B, T + k, D).
        """
        draws = draws[:, : self.patches.num_patches]  # fewer in training on smaller images
        kept = draws.argsort(dim=1, stable=True)[:, : self.num_kept]  # (B, k)
        patches = x[:, self.num_special :].gather(1, kept[:, :, None].expand(-1, -1, x.shape[2]))  # (B, k, D)
        return torch.cat([x[:, : self.num_special], patches], dim=1)

    def use_side(self, side: int | None) -> None:
        """From now on, shrink training images to a side in pixels, and positions to their grid; None shrinks nothing.

        Images to evaluate keep their size.

        Raises:
            InputError: the patches do not tile such images.
        """
        whole = self.patches.grid_of(self.image_size)
        self.patches.grid, self.smaller = whole, None
        if side is not None:
            self.patches.grid = self.patches.grid_of((side, side))
            matrices = (
                resize_matrix(self.image_size[0], side, "bilinear"),
                grid_matrix(whole, self.patches.grid, "bicubic"),
            )
            device = self.patches.bias.device
            self.smaller = matrices[0].to(device), matrices[1].to(device)

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (B, C, H, W) into tokens (B, N, D)."""
        positions = self.positions
        if self.training and self.smaller is not None:
            with torch.autocast(images.device.type, enabled=False):
                pixels, places = self.smaller
                images = (pixels @ images.float() @ pixels.T).to(images.dtype)
                if positions is not None:
                    special, patches = positions.split((self.num_special, places.shape[1]), dim=1)
                    positions = torch.cat([special, places @ patches], dim=1)
        x = self.patches(images, lead=self.num_special)
        # Under autocast the sum, and with it the residual stream, stays in bf16.
        return x + self.offsets(x.shape[1] - self.num_special, positions).to(x.dtype)

    def offsets(self, num_patches: int, positions: Tensor | None) -> Tensor:
        """The part common to all images: special tokens and the patches' bias, with positions, (1, N, D).

        Adding these first leaves one sum over the batch for all their gradients.
        """
        special = [getattr(self, name) for name in SPECIAL if hasattr(self, name)]
        offsets = torch.cat([*special, self.patches.bias.expand(1, num_patches, -1)], dim=1)  # (1, N, D)
        return offsets if positions is None else offsets + positions
