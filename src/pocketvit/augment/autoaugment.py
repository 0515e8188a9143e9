"""AutoAugment: every image gets one of 25 learned sub-policies of two operations, each with a probability.

It has two steps, to separate randomness from pixels. `resolve` turns five uniform numbers per image into a
table of operations (NumPy, on the CPU, a few milliseconds for 50,000 images); `autoaugment` applies it to a
whole batch on its device, one operation at a time on all images that need it. On a GPU, a kernel that reads the same
table replaces `autoaugment` (`pocketvit.kernels.augment_triton`).

Shapes: N images of a table, B images of a batch, S stages (two), H W pixels.

Source: Cubuk et al. 2019, "AutoAugment: Learning Augmentation Policies from Data", https://arxiv.org/abs/1805.09501
Differs: levels have the meaning of the code of Wu 2025, "Powerful Design of Small Vision Transformer on CIFAR10":
rotation is always counter-clockwise, and translation scales with the image, 150 pixels of 331 at the most.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from pocketvit.augment.pillow_ops import OPERATIONS, arguments
from pocketvit.device import to_device

OPS: tuple[str, ...] = tuple(OPERATIONS)
"""The operations; an operation's code is its index. Code 0 leaves the image unchanged."""

NUM_DRAWS = 5  # uniform numbers per image: the sub-policy, whether stages 1 and 2 happen, and their signs


class Step(NamedTuple):
    """One stage of a sub-policy."""

    op: str  # name of the operation, one of `OPS`
    prob: float  # chance that it happens
    level: int | None = None  # its strength, 0 … 9; None for an operation that has none


SubPolicy = tuple[Step, Step]


def _parse(text: str) -> tuple[SubPolicy, ...]:
    """Sub-policies between semicolons or line ends: twice an operation, its probability and its level, if it has one."""

    def step(words: str) -> Step:
        op, prob, *level = words.split()
        return Step(op, float(prob), int(level[0]) if level else None)

    pairs = (pair.split(",") for pair in text.strip().replace("\n", ";").split(";"))
    return tuple((step(first), step(second)) for first, second in pairs)


POLICIES: dict[str, tuple[SubPolicy, ...]] = {
    "cifar10": _parse("""
        invert 0.1,         contrast 0.2 6    ; rotate 0.7 2,       translate_x 0.3 9
        sharpness 0.8 1,    sharpness 0.9 3   ; shear_y 0.5 8,      translate_y 0.7 9
        autocontrast 0.5,   equalize 0.9      ; shear_y 0.2 7,      posterize 0.3 7
        color 0.4 3,        brightness 0.6 7  ; sharpness 0.3 9,    brightness 0.7 9
        equalize 0.6,       equalize 0.5      ; contrast 0.6 7,     sharpness 0.6 5
        color 0.7 7,        translate_x 0.5 8 ; equalize 0.3,       autocontrast 0.4
        translate_y 0.4 3,  sharpness 0.2 6   ; brightness 0.9 6,   color 0.2 8
        solarize 0.5 2,     invert 0.0        ; equalize 0.2,       autocontrast 0.6
        equalize 0.2,       equalize 0.6      ; color 0.9 9,        equalize 0.6
        autocontrast 0.8,   solarize 0.2 8    ; brightness 0.1 3,   color 0.7 0
        solarize 0.4 5,     autocontrast 0.9  ; translate_y 0.9 9,  translate_y 0.7 9
        autocontrast 0.9,   solarize 0.8 3    ; equalize 0.8,       invert 0.1
        translate_y 0.7 9,  autocontrast 0.9
    """),
    "svhn": _parse("""
        shear_x 0.9 4,      invert 0.2        ; shear_y 0.9 8,      invert 0.7
        equalize 0.6,       solarize 0.6 6    ; invert 0.9,         equalize 0.6
        equalize 0.6,       rotate 0.9 3      ; shear_x 0.9 4,      autocontrast 0.8
        shear_y 0.9 8,      invert 0.4        ; shear_y 0.9 5,      solarize 0.2 6
        invert 0.9,         autocontrast 0.8  ; equalize 0.6,       rotate 0.9 3
        shear_x 0.9 4,      solarize 0.3 3    ; shear_y 0.8 8,      invert 0.7
        equalize 0.9,       translate_y 0.6 6 ; invert 0.9,         equalize 0.6
        contrast 0.3 3,     rotate 0.8 4      ; invert 0.8,         translate_y 0.0 2
        shear_y 0.7 6,      solarize 0.4 8    ; invert 0.6,         rotate 0.8 4
        shear_y 0.3 7,      translate_x 0.9 3 ; shear_x 0.1 6,      invert 0.6
        solarize 0.7 2,     translate_y 0.6 7 ; shear_y 0.8 4,      invert 0.8
        shear_x 0.7 9,      translate_y 0.8 3 ; shear_y 0.8 5,      autocontrast 0.7
        shear_x 0.7 2,      invert 0.1
    """),
    "imagenet": _parse("""
        posterize 0.4 8,    rotate 0.6 9      ; solarize 0.6 5,     autocontrast 0.6
        equalize 0.8,       equalize 0.6      ; posterize 0.6 7,    posterize 0.6 6
        equalize 0.4,       solarize 0.2 4    ; equalize 0.4,       rotate 0.8 8
        solarize 0.6 3,     equalize 0.6      ; posterize 0.8 5,    equalize 1.0
        rotate 0.2 3,       solarize 0.6 8    ; equalize 0.6,       posterize 0.4 6
        rotate 0.8 8,       color 0.4 0       ; rotate 0.4 9,       equalize 0.6
        equalize 0.0,       equalize 0.8      ; invert 0.6,         equalize 1.0
        color 0.6 4,        contrast 1.0 8    ; rotate 0.8 8,       color 1.0 2
        color 0.8 8,        solarize 0.8 7    ; sharpness 0.4 7,    invert 0.6
        shear_x 0.6 5,      equalize 1.0      ; color 0.4 0,        equalize 0.6
        equalize 0.4,       solarize 0.2 4    ; solarize 0.6 5,     autocontrast 0.6
        invert 0.6,         equalize 1.0      ; color 0.6 4,        contrast 1.0 8
        equalize 0.8,       equalize 0.6
    """),
}
"""The three policies that the authors of AutoAugment published: 25 sub-policies each, drawn with equal probability."""


@dataclass(frozen=True)
class OpTable:
    """The operations for each image."""

    op: np.ndarray  # codes of the operations, int8, (N, S)
    value: np.ndarray  # their arguments in Pillow's terms (`pillow_ops`), float64, (N, S); 0 where there is none

    def __getitem__(self, rows: Any) -> "OpTable":
        """The table of some of the images, by NumPy indexing."""
        return OpTable(self.op[rows], self.value[rows])


def resolve(policy: str, draws: np.ndarray, *, image_size: tuple[int, int], skip: Collection[str] = ()) -> OpTable:
    """Turn each image's uniform numbers into its two operations.

    Args:
        policy: one of `POLICIES`.
        draws: numbers in [0, 1), (N, NUM_DRAWS): the sub-policy, the gates of both stages, the signs of both stages.
        image_size: (H, W), pixels.
        skip: operations that leave the image unchanged.
    """
    steps = [step for sub_policy in POLICIES[policy] for step in sub_policy]
    op = np.array([0 if step.op in skip else OPS.index(step.op) for step in steps], dtype=np.int8)
    prob = np.array([step.prob for step in steps])
    value = np.array([arguments(step.op, image_size)[:, step.level or 0] for step in steps])  # (25·2, 2 signs)

    choice = (draws[:, :1].astype(np.float64) * len(POLICIES[policy])).astype(np.intp)  # (N, 1)
    row = 2 * choice + np.arange(2)  # (N, 2), into steps
    positive = (draws[:, 3:5] >= 0.5).astype(np.intp)
    active = (draws[:, 1:3] < prob[row]) & (op[row] != 0)
    return OpTable(np.where(active, op[row], np.int8(0)), np.where(active, value[row, positive], 0.0))


def autoaugment(images: Tensor, table: OpTable) -> Tensor:
    """Apply to each image its operations, one stage after the other.

    The images are grouped by operation on the CPU, where the table is, so nothing waits for the device.

    Args:
        images: uint8, (B, H, W, 3), on any device with float64.
        table: the operations of these images, B rows.
    Returns:
        The images after both stages, uint8, (B, H, W, 3).
    """
    images = images.clone()
    order = to_device(np.argsort(table.op.T, axis=1, kind="stable"), images.device)  # (S, B): rows in order of codes
    value = to_device(table.value, images.device)  # (B, S)
    for stage, codes in enumerate(table.op.T):
        counts = np.bincount(codes, minlength=len(OPS)).tolist()
        for op, rows in zip(OPS, order[stage].split(counts), strict=True):
            if op != "identity" and len(rows):
                images[rows] = OPERATIONS[op](images[rows], value[rows, stage])
    return images
