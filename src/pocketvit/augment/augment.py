"""The paper's augmentation: drawn for every image of a pass at once on the CPU, applied in batches on the device.

`draw_images` draws a row of an `ImageTable` for each image; `augment` flips, crops and AutoAugments its uint8
pixels, by a fused kernel or its reference implementation; `normalise_and_erase` makes them floats and blanks a box.
Mixing with a partner follows in `mix`.

Shapes: B images, C = 3 channels, H W pixels.

Source: the order and the magnitudes are those of the code behind Wu 2025, "Powerful Design of Small Vision
Transformer on CIFAR10".
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, assert_never

import numpy as np
import torch
from torch import Tensor

from pocketvit.augment.autoaugment import NUM_DRAWS, OpTable, autoaugment, resolve
from pocketvit.augment.randaugment import TRIVIAL_DRAWS, randaugment, trivialaugment
from pocketvit.config import AugmentConfig
from pocketvit.config.checks import describe_size
from pocketvit.config.training import Kernels
from pocketvit.device import to_device
from pocketvit.kernels.launch import INTERPRETED, choose, needs_gpu, triton
from pocketvit.randomness import Stream, uniform
from pocketvit.usercode import Code

if TYPE_CHECKING or triton is not None:
    from pocketvit.kernels import augment_ops as fused

ERASE_MAX_TRIES = 100
POLICY_DRAWS = 16  # numbers per image for a user-defined policy
PIECE = 8_192  # most images that the reference processes at once, so that it needs less memory than a training step


@dataclass(frozen=True)
class ImageTable:
    """What happens to each image of a batch or pass: NumPy arrays with a row per image."""

    flip: np.ndarray  # mirror left to right, bool, (B,)
    shift: np.ndarray  # rows and columns that the crop is off the center by, int64, (B, 2)
    ops: OpTable | None  # AutoAugment's two operations, or none at all
    erase: np.ndarray  # erased box (top, left, height, width), pixels, int64, (B, 4); height 0 erases nothing
    draws: np.ndarray | None = None  # numbers in [0, 1) for a user's own policy, float32, (B, POLICY_DRAWS)

    def __getitem__(self, rows: np.ndarray | slice) -> "ImageTable":
        """The table of some of the images, in the given order."""
        parts: list[Any] = [part if part is None else part[rows] for part in vars(self).values()]
        return ImageTable(*parts)

    @staticmethod
    def concatenate(tables: Sequence["ImageTable"]) -> "ImageTable":
        """The rows of several tables, one table after the other."""

        def join(parts: Sequence[Any]) -> Any:
            if isinstance(parts[0], OpTable):
                return OpTable(*map(join, zip(*(vars(part).values() for part in parts), strict=True)))
            return None if parts[0] is None else np.concatenate(parts)

        return ImageTable(*map(join, zip(*(vars(table).values() for table in tables), strict=True)))


def draw_images(
    config: AugmentConfig, *, seed: int, pass_index: int, size: int, image_size: tuple[int, int]
) -> ImageTable:
    """Draw a pass: row i is image i's, and the same whatever `size` is.

    Args:
        pass_index: the pass, from 0.
        size: number of images B.
        image_size: (H, W), pixels.
    """
    draws = uniform(seed, Stream.IMAGE, pass_index, size, 3)
    pad = config.crop_pad
    custom = isinstance(config.policy, Code)
    return ImageTable(
        flip=_draw_flips(config, seed, pass_index, draws),
        shift=np.floor(draws[:, 1:3] * (2 * pad + 1)).astype(np.int64) - pad,
        ops=_draw_ops(config, seed, pass_index, size, image_size),
        erase=_draw_erase(config, seed, pass_index, size, image_size),
        draws=uniform(seed, Stream.POLICY, pass_index, size, POLICY_DRAWS) if custom else None,
    )


def _draw_flips(config: AugmentConfig, seed: int, pass_index: int, draws: np.ndarray) -> np.ndarray:
    """Which images are mirrored, bool, (B,), by the draws of this pass, (B, 3).

    Source of alternating flips: Jordan 2024, https://arxiv.org/abs/2404.00498, section 3.6
    """
    match config.flips:
        case "random":
            return draws[:, 0] < config.flip_prob
        case "alternating":
            first = uniform(seed, Stream.IMAGE, 0, *draws.shape)
            return (first[:, 0] < config.flip_prob) ^ bool(pass_index % 2)
        case other:
            assert_never(other)


def _draw_ops(
    config: AugmentConfig, seed: int, pass_index: int, size: int, image_size: tuple[int, int]
) -> OpTable | None:
    """The operations of the policy, a row per image; None without a policy, or with a user-defined one."""

    def draws(columns: int) -> np.ndarray:
        return uniform(seed, Stream.POLICY, pass_index, size, columns)

    common = {"image_size": image_size, "skip": config.skip_ops}
    match config.policy:
        case "none" | Code():
            return None
        case "randaugment":
            return randaugment(draws(2 * config.randaugment_ops), level=config.randaugment_level, **common)
        case "trivialaugment":
            return trivialaugment(draws(TRIVIAL_DRAWS), **common)
        case name:
            return resolve(name, draws(NUM_DRAWS), **common)


def _draw_erase(
    config: AugmentConfig, seed: int, pass_index: int, size: int, image_size: tuple[int, int]
) -> np.ndarray:
    """Boxes of random erasing, (B, 4): tries are drawn until one fits inside the image, 100 at most.

    Source: Zhong et al. 2017, https://arxiv.org/abs/1708.04896
    Differs: the aspect ratio is uniform, not log-uniform, as in the paper's code.
    """
    height, width = image_size
    (area_low, area_high), (aspect_low, aspect_high) = config.erase_area, config.erase_aspect
    boxes = np.zeros((size, 4), dtype=np.int64)
    waiting = np.flatnonzero(uniform(seed, Stream.ERASE, pass_index, size, 1)[:, 0] < config.erase_prob)
    for attempt in range(ERASE_MAX_TRIES):
        if not len(waiting):
            break
        draws = uniform(seed, Stream.ERASE_TRIES + attempt, pass_index, size, 4)[waiting].astype(np.float64)
        area = height * width * (area_low + (area_high - area_low) * draws[:, 0])
        aspect = aspect_low + (aspect_high - aspect_low) * draws[:, 1]
        h = np.rint(np.sqrt(area * aspect)).astype(np.int64)
        w = np.rint(np.sqrt(area / aspect)).astype(np.int64)
        fits = (h < height) & (w < width)
        top = np.floor(draws[:, 2] * (height - h + 1)).astype(np.int64)
        left = np.floor(draws[:, 3] * (width - w + 1)).astype(np.int64)
        boxes[waiting[fits]] = np.stack([top, left, h, w], axis=1)[fits]
        waiting = waiting[~fits]
    return boxes


def augment(images: Tensor, table: ImageTable, *, kernels: Kernels = "auto") -> Tensor:
    """Flip, crop and AutoAugment; nothing waits for the device.

    Args:
        images: uint8, (B, H, W, C).
        table: a row per image.
        kernels: "auto" (fused if supported), "fused" or "reference". All give the same bytes.
    Returns:
        uint8 (B, H, W, C).
    Raises:
        InputError: an unknown `kernels`, or `kernels="fused"` for images or operations that it does not support.
    """
    lacking = _without_kernel(table)
    choice = choose("this augmentation", kernels, {"fused": lambda: supported(images) or lacking})
    if lacking is not None and choice.reason == lacking:
        warnings.warn(f"the augmentation runs in plain PyTorch: {lacking}", stacklevel=2)
    return IMPLEMENTATIONS[choice.name](images, table)


def supported(images: Tensor) -> str | None:
    """None if the fused kernel supports these images, (B, H, W, C); else the reason why it does not."""
    reason = needs_gpu(images.device)
    if reason is not None:
        return reason
    if images.shape[3] != 3:
        return f"images of {images.shape[3]} channels, not 3"
    if max(images.shape[1:3]) > fused.MAX_SIDE:
        return f"images of {describe_size(images.shape[1:3])} have a side over {fused.MAX_SIDE}"
    if INTERPRETED:
        return None
    major, minor = torch.cuda.get_device_capability(images.device)
    return None if major >= 8 else f"the GPU's compute capability is {major}.{minor}, below 8.0"


def _without_kernel(table: ImageTable) -> str | None:
    """None if the fused kernel supports all operations of the table; else the reason why it does not."""
    if triton is None or table.ops is None:
        return None
    used = table.ops.op
    return next((f"{op} has no fused kernel" for code, op in fused.UNFUSED.items() if (used == code).any()), None)


def _augment_fused(images: Tensor, table: ImageTable) -> Tensor:
    """`augment` by the fused kernel: one copy of the table to the device, and one launch per stage."""
    ops = table.ops
    if ops is None:  # one stage of no operation, to flip and crop
        ops = OpTable(np.zeros((len(images), 1), np.int8), np.zeros((len(images), 1)))
    rows = fused.table_rows(table.flip, table.shift, ops.op, ops.value)
    return fused.run_stages(images, to_device(rows, images.device))


def augment_reference(images: Tensor, table: ImageTable) -> Tensor:
    """The reference implementation of `augment`, on any device with float64."""

    def one_piece(images: Tensor, table: ImageTable) -> Tensor:
        flip, shift = to_device(table.flip, images.device), to_device(table.shift, images.device)
        moved = flip_and_crop(images, flip, shift)
        return moved if table.ops is None else autoaugment(moved, table.ops)

    pieces = [slice(start, start + PIECE) for start in range(0, max(1, len(images)), PIECE)]
    return torch.cat([one_piece(images[piece], table[piece]) for piece in pieces])


IMPLEMENTATIONS = {"fused": _augment_fused, "reference": augment_reference}


def flip_and_crop(images: Tensor, flip: Tensor, shift: Tensor) -> Tensor:
    """Flip some images, then shift each over a black background: a random crop of the padded image.

    Args:
        images: uint8, (B, H, W, C).
        flip: bool, (B,).
        shift: rows and columns, int64, (B, 2).
    Returns:
        uint8 (B, H, W, C).
    """
    count, height, width, _ = images.shape
    rows = torch.arange(height, device=images.device) + shift[:, :1]  # (B, H)
    columns = torch.arange(width, device=images.device) + shift[:, 1:]  # (B, W)
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]  # (B, H, W)
    columns = torch.where(flip[:, None], width - 1 - columns, columns)
    source = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None]  # (B, H, W)
    source = source + torch.arange(count, device=images.device)[:, None, None] * (height * width)
    return images.flatten(0, 2)[source] * inside[..., None]  # (B, H, W, C)


def normalise_and_erase(images: Tensor, mean: Tensor, std: Tensor, erase: Tensor) -> Tensor:
    """Make pixels floats of mean 0 and std 1 over the training set, then blank a box of each image.

    The box is filled with the raw channel mean *after* normalization, as in the paper's code, so the fill is not
    neutral.

    Args:
        images: uint8, (B, H, W, C).
        mean: of the pixels in [0, 1], (C,).
        std: of the same pixels, (C,).
        erase: boxes (top, left, height, width), int64, (B, 4).
    Returns:
        float32 (B, C, H, W).
    """
    _, height, width, _ = images.shape
    x = normalise(images, mean, std)  # (B, C, H, W)
    top, left, h, w = (column[:, None] for column in erase.unbind(1))  # each (B, 1)
    rows = torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    in_rows = (rows >= top) & (rows < top + h)  # (B, H)
    in_columns = (columns >= left) & (columns < left + w)  # (B, W)
    inside = in_rows[:, None, :, None] & in_columns[:, None, None, :]  # (B, 1, H, W)
    return torch.where(inside, mean[:, None, None], x)


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Pixels uint8 (B, H, W, C) as floats (B, C, H, W) of mean 0 and std 1; mean and std (C,) are of [0, 1]."""
    x = images.permute(0, 3, 1, 2).float() / 255  # (B, C, H, W)
    return (x - mean[:, None, None]) / std[:, None, None]
