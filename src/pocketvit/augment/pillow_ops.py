"""Pillow's image operations on a batch, each image with its own argument, equal to Pillow bit for bit.

AutoAugment is defined by Pillow's operations on uint8 images, including their rounding. So every function here
repeats the same arithmetic in the same precision and order (float32 where Pillow has C floats, float64 where it has
doubles or Python floats, 16.16 fixed point where it rotates), only over a batch of tensors and on any device.
If Pillow's result depends only on integers (luma, mean, smoothing, histograms), any exact computation is used.

Every function takes images (B, H, W, 3) uint8 and a value (B,) float64 on the same device, the operation's argument
in Pillow's own terms, and returns new images (B, H, W, 3) uint8. Operations without an argument ignore the value.
Nothing waits for the device, and pixels from outside the image are gray 128.

Shapes: B batch, H W pixels; the three colors come last, as in memory.

Source: Pillow's ImageOps, ImageEnhance, Image.rotate, and its C files Geometry.c, Blend.c, Filter.c, Convert.c.
Differs: a shear may be one level off where Pillow was compiled with fused multiply-add (64-bit ARM).
"""

from collections.abc import Callable
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from pocketvit.config import Operation

FILL = 128  # the gray level of pixels outside the source image


def identity(images: Tensor, value: Tensor) -> Tensor:
    """The images unchanged."""
    return images.clone()


# --- Geometry: each output pixel looks up where it comes from. ---


def shear_x(images: Tensor, value: Tensor) -> Tensor:
    """Move row y sideways by value · (y + 1/2) pixels, with Pillow's bicubic interpolation (a = -1, truncated).

    Vertically, every sample is at a pixel's center, where the cubic in y returns that row: four taps in x remain.
    """
    width = images.shape[2]
    row, column = _centres(images)
    source = column + value[:, None, None] * row  # (B, H, W)
    inside = (source >= 0) & (source < width)
    source -= 0.5
    left = source.floor()
    t = (source - left)[..., None]  # (B, H, W, 1), in [0, 1)
    left = left.long()
    a, b, c, d = (_pick(images, (left + i).clamp_(0, width - 1), dim=2).short() for i in (-1, 0, 1, 2))
    # The coefficients are whole numbers, exact in int16; the powers of t are summed in Pillow's order, in float64.
    result = t * (b - a + d - c)
    for coefficient in (2 * (a - b) + c - d, c - a):
        result.add_(coefficient).mul_(t)
    result = result.add_(b).clamp_(0, 255).to(torch.uint8)  # (B, H, W, 3)
    return result.masked_fill_(~inside[..., None], FILL)


def shear_y(images: Tensor, value: Tensor) -> Tensor:
    """Move column x down or up by value · (x + 1/2) pixels; otherwise as `shear_x`."""
    return shear_x(images.transpose(1, 2), value).transpose(1, 2)


def translate_x(images: Tensor, value: Tensor) -> Tensor:
    """Show at each pixel the one `value` pixels to its right (a fraction rounds to the nearest)."""
    width = images.shape[2]
    _, column = _centres(images)
    source = (column + value[:, None]).floor_().long()  # (B, W)
    inside = (source >= 0) & (source < width)
    moved = _pick(images, source.clamp_(0, width - 1)[:, None], dim=2)
    return moved.masked_fill_(~inside[:, None, :, None], FILL)


def translate_y(images: Tensor, value: Tensor) -> Tensor:
    """Show at each pixel the one `value` pixels below it; otherwise as `translate_x`."""
    return translate_x(images.transpose(1, 2), value).transpose(1, 2)


def rotate(images: Tensor, value: Tensor) -> Tensor:
    """Rotate by `value` degrees counter-clockwise about the center, nearest neighbor.

    Pillow moves through the source in steps of 1/65536 pixel. This is repeated for an equal result:
    exact coordinates would sometimes give another pixel.
    """
    height, width = images.shape[1:3]
    angle = torch.deg2rad(-value)
    cos, sin = angle.cos(), angle.sin()
    # The source of the center of the first output pixel.
    x0 = cos * (0.5 - width / 2) + sin * (0.5 - height / 2) + width / 2
    y0 = cos * (0.5 - height / 2) - sin * (0.5 - width / 2) + height / 2
    cos, sin, minus_sin, x0, y0 = (_fixed_point(v)[:, None, None] for v in (cos, sin, -sin, x0, y0))  # (B, 1, 1)
    row = torch.arange(height, device=images.device)[:, None]
    column = torch.arange(width, device=images.device)
    x = (x0 + cos * column + sin * row) >> 16  # (B, H, W)
    y = (y0 + minus_sin * column + cos * row) >> 16
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    source = y.clamp_(0, height - 1) * width + x.clamp_(0, width - 1)
    rotated = _pick(images.flatten(1, 2), source.flatten(1), dim=1).view(images.shape)  # (B, H·W, 3) -> (B, H, W, 3)
    return rotated.masked_fill_(~inside[..., None], FILL)


def _centres(images: Tensor) -> tuple[Tensor, Tensor]:
    """The coordinates of the pixels' centers, float64: of rows (H, 1) and of columns (W,)."""
    row, column = (torch.arange(n, dtype=torch.float64, device=images.device) + 0.5 for n in images.shape[1:3])
    return row[:, None], column


def _pick(images: Tensor, index: Tensor, dim: int) -> Tensor:
    """All three colors at `index` along dimension `dim`; index has no color dimension and size 1 where it is constant."""
    shape = list(images.shape)
    shape[dim] = index.shape[dim]
    return images.gather(dim, index[..., None].expand(shape))


def _fixed_point(number: Tensor) -> Tensor:
    """Numbers in units of 1/65536, rounded half up, int64."""
    return (number * 65536 + 0.5).floor_().long()


# --- Enhancement: away from, or towards, an image that lacks the property. ---


def color(images: Tensor, value: Tensor) -> Tensor:
    """Scale the distance from gray by `value`."""
    return _blend(_luma(images)[..., None], images, value)


def contrast(images: Tensor, value: Tensor) -> Tensor:
    """Scale the distance from the image's mean luma, rounded half up, by `value`."""
    pixels = images.shape[1] * images.shape[2]
    total = _luma(images).sum(dim=(1, 2))  # (B,) int64
    mean = (2 * total + pixels) // (2 * pixels)
    return _blend(mean[:, None, None, None], images, value)


def brightness(images: Tensor, value: Tensor) -> Tensor:
    """Scale the distance from black by `value`."""
    return _blend(torch.zeros_like(images[:, :1, :1]), images, value)


def sharpness(images: Tensor, value: Tensor) -> Tensor:
    """Scale the distance from a smoothed image by `value`.

    Smoothing is the 3 × 3 kernel (1 1 1, 1 5 1, 1 1 1) / 13, rounded; border pixels are unchanged.
    """
    smooth = images.float()
    rows = smooth[:, :-2] + smooth[:, 1:-1] + smooth[:, 2:]  # (B, H - 2, W, 3)
    total = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]  # (B, H - 2, W - 2, 3)
    inner = smooth[:, 1:-1, 1:-1]
    inner.copy_(total.add_(inner, alpha=4).div_(13).round_())  # no ties: 13 is odd
    return _blend(smooth, images, value)


def _luma(images: Tensor) -> Tensor:
    """Pillow's conversion to gray in 16-bit fixed point, int32, (B, H, W)."""
    red, green, blue = images.int().unbind(-1)
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


def _blend(start: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    """start + factor · (images - start) in float32, clipped and truncated; `start` broadcasts to (B, H, W, 3)."""
    start = start.float()
    result = (images - start).mul_(factor.float()[:, None, None, None]).add_(start)
    return result.clamp_(0, 255).to(torch.uint8)


# --- Levels: every pixel's new level depends on its old one (and on its image's histogram). ---


def posterize(images: Tensor, value: Tensor) -> Tensor:
    """Keep the `value` highest bits of every level, 1 … 8."""
    lost = 8 - value.to(torch.uint8)[:, None, None, None]
    return (images >> lost) << lost


def solarize(images: Tensor, value: Tensor) -> Tensor:
    """Invert the levels that are not below the threshold `value`."""
    threshold = value.ceil().short()[:, None, None, None]  # the same for whole numbers, and no float64 image is made
    return torch.where(images < threshold, images, ~images)


def autocontrast(images: Tensor, value: Tensor) -> Tensor:
    """Stretch each color of each image to the full range 0 … 255."""
    low = images.amin(dim=(1, 2))[:, None].double()  # (B, 1, 3)
    high = images.amax(dim=(1, 2))[:, None].double()
    level = torch.arange(256, dtype=torch.float64, device=images.device)[:, None]
    spread = (high - low).clamp_(min=1)
    scale = torch.full_like(spread, 255) / spread  # `255 / spread` would be 255 times the rounded reciprocal
    table = (level * scale - low * scale).clamp_(0, 255)  # (B, 256, 3)
    return _look_up(images, torch.where(high > low, table, level).to(torch.uint8))


def equalize(images: Tensor, value: Tensor) -> Tensor:
    """Equalize each color of each image, so that its levels are about equally frequent."""
    pixels = images.flatten(1, 2).long()  # (B, H·W, 3)
    level = torch.arange(256, dtype=torch.int32, device=images.device)[:, None]
    counts = torch.zeros(len(images), 256, 3, dtype=torch.int32, device=images.device)
    counts.scatter_add_(1, pixels, torch.ones_like(level[:1, None]).expand_as(pixels))
    brightest = counts.gather(1, pixels.amax(dim=1, keepdim=True))  # (B, 1, 3): how many have the highest level
    step = (pixels.shape[1] - brightest) // 255
    below = counts.cumsum(dim=1, dtype=torch.int32) - counts
    table = ((step // 2 + below) // step.clamp(min=1)).clamp_(max=255)  # (B, 256, 3)
    return _look_up(images, torch.where(step > 0, table, level).to(torch.uint8))


def invert(images: Tensor, value: Tensor) -> Tensor:
    """255 minus every level."""
    return ~images


def _look_up(images: Tensor, table: Tensor) -> Tensor:
    """Replace every level by its entry in `table`, (B, 256, 3) uint8: one table per color and image."""
    return table.gather(1, images.flatten(1, 2).long()).view(images.shape)  # (B, H·W, 3) -> (B, H, W, 3)


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {name: globals()[name] for name in get_args(Operation)}
"""The functions of the operations; the position is the operation's code in tables."""


def arguments(op: str, image_size: tuple[int, int]) -> np.ndarray:
    """The arguments of AutoAugment's ten levels of an operation on images of (H, W) pixels, for the signs - and +, (2, 10).

    Factors of shear; pixels; degrees; factors of enhancement; bits; a threshold. Both rows are the same for an
    operation without a sign, and 0 for one without levels; float64.

    Raises:
        ValueError: an operation that is not known here.
    """
    sign = np.array([[-1.0], [1.0]])
    match op:
        case "shear_x" | "shear_y":
            return sign * np.linspace(0, 0.3, 10)
        case "translate_x" | "translate_y":
            return sign * (np.linspace(0, 150 / 331, 10) * image_size[1 if op == "translate_x" else 0])
        case "color" | "contrast" | "brightness" | "sharpness":
            return 1 + sign * np.linspace(0, 0.9, 10)
        case "rotate":
            levels = np.linspace(0, 30, 10)
        case "posterize":
            levels = np.linspace(8, 4, 10).round()
        case "solarize":
            levels = np.linspace(256, 0, 10)
        case "identity" | "autocontrast" | "equalize" | "invert":
            levels = np.zeros(10)
        case _:
            raise ValueError(f"the operation {op} has no levels")
    return np.broadcast_to(levels, (2, 10))
