"""The augmentation on the GPU, fused and plain, against the plain one on the CPU, byte for byte.

That the plain one on the CPU equals Pillow is shown by `tests/reference/test_pillow_ops.py`.
"""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from augment_cases import FUSED_OPS
from poison import poisoned_memory
from torch import Tensor

from pocketvit.augment.augment import ImageTable, augment, augment_reference, draw_images, supported
from pocketvit.augment.autoaugment import OPS, OpTable, arguments
from pocketvit.config import AugmentConfig
from pocketvit.kernels import augment_ops as ops

pytestmark = pytest.mark.gpu

AUGMENTATIONS = {
    "cifar10": {},
    "svhn": {"policy": "svhn", "flip_prob": 1.0},
    "imagenet": {"policy": "imagenet", "crop_pad": 0},
    "skipped": {"policy": "cifar10", "skip_ops": ("equalize", "rotate")},
    "randaugment": {"policy": "randaugment", "randaugment_ops": 3, "randaugment_level": 8},
    "trivialaugment": {"policy": "trivialaugment", "crop_pad": 9},
    "none": {"policy": "none"},
}
"""What differs from the default augmentation."""


def table_for(images: Tensor, **config) -> ImageTable:
    """A drawn table for images (B, H, W, 3)."""
    size = tuple(images.shape[1:3])
    return draw_images(AugmentConfig(**config), seed=5, pass_index=1, size=len(images), image_size=size)


def noise(*shape: int) -> Tensor:
    """Images of random levels, of another contrast each, uint8, (B, H, W, 3)."""
    rng = np.random.default_rng(sum(shape))
    low, high = np.sort(rng.integers(0, 256, (2, shape[0], 1, 1, 3)), axis=0)
    return torch.from_numpy(rng.integers(low, high + 1, shape, dtype=np.uint8))


@pytest.fixture
def many_images(real_images: np.ndarray) -> Tensor:
    """2,112 images to augment: the sample 32 times, each its own way, and noise; uint8, (B, 32, 32, 3)."""
    return torch.cat([torch.from_numpy(np.tile(real_images, (32, 1, 1, 1))), noise(64, 32, 32, 3)])


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Fresh memory on the GPU is not zero, so that a byte which nobody wrote shows."""
    with poisoned_memory("cuda"):
        yield


def assert_fused_equals_the_twin(images: Tensor, table: ImageTable) -> None:
    fused = augment(images.cuda(), table, kernels="fused").cpu()
    different = (fused != augment_reference(images, table)).flatten(1).any(dim=1).numpy()
    which = [] if table.ops is None else [[OPS[code] for code in codes] for codes in table.ops.op[different][:5]]
    assert not different.any(), f"{different.sum()} of {len(images)} images differ, among them {which}"


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_policies(name, many_images, poisoned):
    assert supported(many_images.cuda()) is None
    assert_fused_equals_the_twin(many_images, table_for(many_images, **AUGMENTATIONS[name]))


@pytest.mark.parametrize("size", [(28, 28), (33, 7), (1, 1), (2, 5), (96, 64), (224, 224)], ids=str)
def test_every_operation_level_and_sign_in_other_sizes(size, poisoned):
    value = np.stack([arguments(op, size).ravel() for op in FUSED_OPS])  # (15, 20)
    op = np.repeat(np.array([OPS.index(op) for op in FUSED_OPS], np.int8), 20)[:, None]
    images = noise(len(op), *size, 3)
    drawn = table_for(images, crop_pad=3)
    table = ImageTable(drawn.flip, drawn.shift, OpTable(op, value.reshape(-1, 1)), drawn.erase)
    assert_fused_equals_the_twin(images, table)


@pytest.mark.parametrize("name", ["cifar10", "svhn", "imagenet"])
def test_the_twin_gives_the_same_on_the_gpu(name, many_images):
    table = table_for(many_images, policy=name)
    assert torch.equal(augment_reference(many_images.cuda(), table).cpu(), augment_reference(many_images, table))


@pytest.mark.parametrize("kernels", ["fused", "reference"])
def test_nothing_waits_for_the_gpu(kernels, many_images):
    table, on_gpu = table_for(many_images), many_images.cuda()
    augment(on_gpu, table, kernels=kernels)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        augment(on_gpu, table, kernels=kernels)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(("block", "num_warps"), [(256, 4), (1024, 4), (1024, 8), (2048, 8)])
def test_any_block_gives_the_same(block, num_warps, many_images):
    table, on_gpu = table_for(many_images), many_images.cuda()
    rows = torch.from_numpy(ops.table_rows(table.flip, table.shift, table.ops.op, table.ops.value)).cuda()
    assert torch.equal(ops.run_stages(on_gpu, rows, block=block, num_warps=num_warps), ops.run_stages(on_gpu, rows))


def test_a_large_set_passes_32_bit_offsets():
    images = noise(20, 224, 224, 3).cuda().repeat(750, 1, 1, 1)
    assert images.numel() > 2**31
    table = table_for(images)
    last = slice(len(images) - 20, None)
    assert torch.equal(augment(images, table)[last], augment(images[last], table[last]))
