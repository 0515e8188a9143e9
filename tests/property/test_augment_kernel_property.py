"""What must hold for the augmentation of any images by any table; the kernel's part runs in Triton's interpreter."""

import numpy as np
import torch
from augment_cases import FUSED_OPS
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter import in_interpreter, natively
from torch import Tensor

from pocketvit.augment.augment import ImageTable, augment, augment_reference
from pocketvit.augment.autoaugment import OPS, OpTable

VALUES = {
    "shear": st.floats(-1, 1),
    "translate": st.floats(-40, 40),
    "rotate": st.floats(-360, 360),
    "posterize": st.integers(1, 8).map(float),
    "solarize": st.floats(0, 256),
}
"""Arguments by the first word of the operation's name; factors of enhancement otherwise."""


@st.composite
def augmentations(draw: st.DrawFn) -> tuple[Tensor, ImageTable]:
    """A few images of any size and contrast, and any operations, flips and shifts for them."""
    count, height, width, stages = (draw(st.integers(1, high)) for high in (3, 16, 16, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    low, high = sorted((draw(st.integers(0, 255)), draw(st.integers(0, 255))))
    images = rng.integers(low, high + 1, (count, height, width, 3), dtype=np.uint8)
    names = [[draw(st.sampled_from(FUSED_OPS)) for _ in range(stages)] for _ in range(count)]
    value = [[draw(VALUES.get(op.split("_")[0], st.floats(-0.5, 2.5))) for op in row] for row in names]
    table = ImageTable(
        flip=rng.random(count) < 0.5,
        shift=rng.integers(-30, 31, (count, 2)),
        ops=OpTable(np.array([[OPS.index(op) for op in row] for row in names], np.int8), np.array(value)),
        erase=np.zeros((count, 4), np.int64),
    )
    return torch.from_numpy(images), table


@in_interpreter
@settings(max_examples=25, deadline=None, derandomize=True)
@given(augmentations())
def test_the_kernel_equals_the_twin(case):
    images, table = case
    assert torch.equal(augment(images, table, kernels="fused"), augment_reference(images, table))


@natively
@settings(max_examples=25, deadline=None, derandomize=True)
@given(augmentations(), st.randoms(use_true_random=False))
def test_an_image_does_not_depend_on_the_others(case, random):
    images, table = case
    order = np.array(random.sample(range(len(images)), len(images)))
    together = augment(images, table)
    assert torch.equal(augment(images[order], table[order]), together[order])
