"""Launch the augmentation kernel: its form of the table, and one launch per stage.

Shapes: B images, S stages (operations of an image, one after the other), H W pixels.
"""

from typing import get_args

import numpy as np
import torch
from torch import Tensor

from pocketvit.config import Operation
from pocketvit.kernels import augment_triton
from pocketvit.kernels.augment_triton import ROTATE, stage_kernel
from pocketvit.kernels.launch import launch

ROW = np.dtype([("flip", "i4"), ("shift", "i4", 2), ("op", "i4"), ("argument", "f8", 2)])
"""An image's part of a stage: 32 bytes. The argument of rotation is its cosine and sine."""

UNFUSED = {code: op for code, op in enumerate(get_args(Operation)) if code and not hasattr(augment_triton, op.upper())}
"""Operations that the kernel does not support, by their codes; code 0 leaves the image unchanged."""

BLOCK, NUM_WARPS = 512, 8  # bytes of an image that a program works on at a time, and the warps that share them

MAX_SIDE = 1024
"""The largest height or width: beyond it, one program per image is slow; 32-bit integers would go further."""


def table_rows(flip: np.ndarray, shift: np.ndarray, op: np.ndarray, value: np.ndarray) -> np.ndarray:
    """The table as the kernel reads it.

    Args:
        flip: mirror left to right, bool, (B,).
        shift: rows and columns that the crop is off the center by, (B, 2).
        op: codes of the operations, (B, S) with S >= 1.
        value: their arguments in Pillow's terms, (B, S).
    Returns:
        int32, (S, B, 8): a `ROW` for every stage and image. Only the first stage flips and crops.
    """
    rows = np.zeros(op.shape[::-1], dtype=ROW)  # (S, B)
    rows["flip"][0], rows["shift"][0], rows["op"] = flip, shift, op.T
    rows["argument"][..., 0] = value.T
    rotated = rows["op"] == ROTATE.value
    angle = np.deg2rad(-rows["argument"][rotated, 0])
    rows["argument"][rotated] = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return rows.view(np.int32).reshape(*rows.shape, 8)


def run_stages(images: Tensor, rows: Tensor, *, block: int | None = None, num_warps: int = NUM_WARPS) -> Tensor:
    """Flip, crop and all operations, in the order of the stages.

    Args:
        images: uint8, (B, H, W, 3).
        rows: what `table_rows` made, on the images' device, (S, B, 8).
        block: bytes worked on at a time, a power of two; None = `BLOCK`.
    Returns:
        uint8 (B, H, W, 3).
    """
    count, height, width, _ = images.shape
    images = images.contiguous()
    if not images.numel():
        return images.clone()
    for stage in rows:  # (B, 8)
        out = torch.empty_like(images)
        launch(
            stage_kernel, (count,), images, out, stage, stage.view(torch.float64),  # the last (B, 4)
            H=height, W=width, BLOCK=block or BLOCK, num_warps=num_warps, enable_fp_fusion=False,
        )  # fmt: skip
        images = out
    return images
