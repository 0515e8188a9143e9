"""Stems: from an image to its patch tokens, by `model.stem`.

Shapes: B batch, C channels, H W pixels, p patch side, P patches, D width, L lead tokens.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pocketvit.config import ModelConfig
from pocketvit.config.checks import describe_size
from pocketvit.errors import InputError
from pocketvit.model.norm import NORM_EPS

CHANNELS = 3  # red, green, blue: all images are converted when they are read


class PatchEmbedding(nn.Module):
    """Cut the image into squares and project each to a token.

    The weight has a convolution's shape, (D, C, p, p), and default init. Patches without overlap are a
    matrix product, which is faster; overlapping ones are a convolution without padding.

    Source: Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929

    Args:
        image_size: (H, W), pixels.
        stacked: images that lie behind each other by channel.
    Raises:
        InputError: the patches do not tile the image.
    """

    bf16_images = True
    """Whether images may come in bf16 where the run uses it: a product of matrices would round them anyway."""

    def __init__(self, config: ModelConfig, image_size: tuple[int, int], stacked: int = 1) -> None:
        super().__init__()
        self.patch_size, self.stride = config.patch_size, config.patch_stride or config.patch_size
        self.grid = self.grid_of(image_size)
        self.proj = nn.Conv2d(stacked * CHANNELS, config.width, kernel_size=self.patch_size, stride=self.stride)

    def grid_of(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the patches of images of another size (H, W).

        Raises:
            InputError: the patches do not tile them.
        """
        p, stride = self.patch_size, self.stride
        if any(side < p or (side - p) % stride for side in image_size):
            raise InputError(
                f"model.patch_size={p}"
                + (f" with model.patch_stride={stride} does not tile" if stride != p else " does not divide")
                + f" images of {describe_size(image_size)}; choose another one, or set data.resize"
            )
        return (image_size[0] - p) // stride + 1, (image_size[1] - p) // stride + 1

    @property
    def num_patches(self) -> int:
        """P."""
        return self.grid[0] * self.grid[1]

    @property
    def bias(self) -> Tensor:
        """What is still to be added to every patch token, (D,)."""
        assert self.proj.bias is not None  # a convolution has one unless told otherwise
        return self.proj.bias

    @property
    def filters(self) -> Tensor:
        """The weights of an image's own pixels in the first layer, (filters, 3, rows, columns)."""
        return self.proj.weight[:, :CHANNELS]

    def forward(self, images: Tensor, lead: int = 0) -> Tensor:
        """Project the patches of images (B, C, H, W), row by row, after `lead` zero tokens, without the bias.

        Returns:
            (B, L + P, D).
        """
        if self.stride != self.patch_size:
            x = F.conv2d(images, self.proj.weight, stride=self.stride).flatten(2).transpose(1, 2)  # (B, P, D)
            return F.pad(x, (0, 0, lead, 0))
        return F.linear(F.pad(self.cut(images), (0, 0, lead, 0)), self.proj.weight.flatten(1))

    def cut(self, images: Tensor) -> Tensor:
        """The pixels of each patch of images (B, C, H, W), row by row: (B, P, C·p·p)."""
        p = self.patch_size
        if self.stride != p:  # by views, since F.unfold launches a kernel for each image
            x = images.unfold(2, p, self.stride).unfold(3, p, self.stride)  # (B, C, rows, columns, p, p)
            return x.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
        x = images.unflatten(3, (-1, p)).unflatten(2, (-1, p))  # (B, C, rows, p, columns, p)
        return x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


class ShiftedPatches(PatchEmbedding):
    """Patches that also see their four diagonal neighborhoods.

    The image is moved by half a patch to left-up, right-up, left-down and right-down, with zeros coming in; image and
    moved images lie behind each other by channel, and each patch of all five is normalized and projected to a token.

    Source: Lee et al. 2021 (SPT of SL-ViT), https://arxiv.org/abs/2112.13492
    Differs: overlapping patches (`model.patch_stride`) are possible.
    """

    bf16_images = False  # in flat patches, the norm would enlarge what rounding does

    def __init__(self, config: ModelConfig, image_size: tuple[int, int]) -> None:
        super().__init__(config, image_size, stacked=5)
        self.norm = nn.LayerNorm(self.proj.weight[0].numel(), eps=NORM_EPS)

    def forward(self, images: Tensor, lead: int = 0) -> Tensor:
        """As `PatchEmbedding`: images (B, C, H, W) -> (B, L + P, D)."""
        (height, width), shift = images.shape[2:], self.patch_size // 2
        padded, starts = F.pad(images, 4 * (shift,)), (2 * shift, 0)  # a crop further down shows the image moved up
        moved = [padded[:, :, y : y + height, x : x + width] for y in starts for x in starts]
        patches = self.norm(self.cut(torch.cat([images, *moved], dim=1)))  # (B, P, 5·C·p·p)
        return F.linear(F.pad(patches, (0, 0, lead, 0)), self.proj.weight.flatten(1))


class ReLUConv2d(nn.Conv2d):
    """A convolution before a ReLU, which is why its initial weights are drawn after He et al. 2015."""


class ConvolutionalStem(nn.Module):
    """Convolutions that make p × p pixels a token: each is followed by ReLU and a maximum, and halves the image's sides.

    There are log₂ p of them, 3 × 3 with 64 channels between, so that an image has as many tokens as with p × p patches:
    p = 2 is CCT-·/3x1, p = 4 is 3x2.

    Source: Hassani et al. 2021 (CCT), https://arxiv.org/abs/2104.05704; initial weights normal, as in the authors' code, with
    variance 2 / (fan in): He et al. 2015, https://arxiv.org/abs/1502.01852
    """

    CHANNELS_BETWEEN = 64
    bf16_images = True

    def __init__(self, config: ModelConfig, image_size: tuple[int, int]) -> None:
        super().__init__()
        count = config.patch_size.bit_length() - 1
        channels = (CHANNELS, *(count - 1) * (self.CHANNELS_BETWEEN,), config.width)
        self.convolutions = nn.ModuleList(ReLUConv2d(*pair, 3, padding=1, bias=False) for pair in pairwise(channels))
        self.patch_size = config.patch_size
        self.grid = self.grid_of(image_size)
        self.bias: Tensor
        self.register_buffer("bias", torch.zeros(config.width), persistent=False)

    def grid_of(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """As `PatchEmbedding`."""
        height, width = image_size
        return -(-height // self.patch_size), -(-width // self.patch_size)  # rounded up

    @property
    def num_patches(self) -> int:
        """P."""
        return self.grid[0] * self.grid[1]

    @property
    def filters(self) -> Tensor:
        """As `PatchEmbedding`."""
        return next(self.convolutions.parameters())

    def forward(self, images: Tensor, lead: int = 0) -> Tensor:
        """As `PatchEmbedding`: images (B, C, H, W) -> (B, L + P, D)."""
        for convolution in self.convolutions:
            images = F.max_pool2d(convolution(images).relu(), 3, stride=2, padding=1)
        return F.pad(images.flatten(2).transpose(1, 2), (0, 0, lead, 0))


STEMS = {"patches": PatchEmbedding, "shifted": ShiftedPatches, "conv": ConvolutionalStem}
"""By `model.stem`: constructed and used like `PatchEmbedding`, with `grid` and `bias`."""
