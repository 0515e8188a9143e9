"""The fused augmentation in Triton's interpreter: whole augmentations against the twin, operations against Pillow.

Triton reads TRITON_INTERPRET when it is first imported, so the tests marked `in_interpreter` are skipped here and run
by `test_kernel_in_the_interpreter` in a process of their own, together with those of `test_pillow_ops`.
"""

import numpy as np
import pytest
import torch
from augment_cases import FUSED_OPS, UNFUSED
from interpreter import assert_green_in_the_interpreter, in_interpreter, natively
from torch import Tensor

from pocketvit.augment.augment import IMPLEMENTATIONS, ImageTable, augment, augment_reference, draw_images, supported
from pocketvit.augment.autoaugment import OPS, OpTable, arguments
from pocketvit.config import AugmentConfig
from pocketvit.errors import InputError

AUGMENTATIONS = {
    "cifar10": {},
    "svhn": {"policy": "svhn", "flip_prob": 1.0},
    "imagenet": {"policy": "imagenet", "crop_pad": 0},
    "skipped": {"policy": "imagenet", "skip_ops": ("equalize", "rotate")},
    "randaugment": {"policy": "randaugment", "randaugment_ops": 3, "randaugment_level": 8},
    "trivialaugment": {"policy": "trivialaugment", "crop_pad": 9},
    "none": {"policy": "none", "crop_pad": 2},
}
"""What differs from the default augmentation."""


def noise(count: int, height: int, width: int) -> Tensor:
    """Images of random levels in half of the range, uint8, (B, H, W, 3)."""
    generator = torch.Generator().manual_seed(count + height)
    return torch.randint(50, 180, (count, height, width, 3), dtype=torch.uint8, generator=generator)


def table_for(images: Tensor, **config) -> ImageTable:
    """A drawn table for images (B, H, W, 3)."""
    size = tuple(images.shape[1:3])
    return draw_images(AugmentConfig(**config), seed=5, pass_index=1, size=len(images), image_size=size)


@natively
@pytest.mark.long
def test_kernel_in_the_interpreter():
    assert_green_in_the_interpreter(
        "reference/test_augment_kernel.py",
        "reference/test_pillow_ops.py",
        "property/test_augment_kernel_property.py",
        "reference/test_batch_kernel.py",
        "property/test_batch_kernel_property.py",
    )


@in_interpreter
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_whole_augmentations_equal_the_twin(name, poisoned, monkeypatch, real_images):
    monkeypatch.setattr("pocketvit.kernels.augment_ops.BLOCK", 4096)
    images = torch.from_numpy(real_images[:12].copy())
    before = images.clone()
    table = table_for(images, **AUGMENTATIONS[name])
    fused = augment(images, table, kernels="fused")
    assert torch.equal(fused, augment_reference(images, table))
    assert torch.equal(images, before), "the source must stay as it is"


@in_interpreter
@pytest.mark.parametrize("size", [(7, 33), (28, 28), (1, 1)], ids=str)
def test_every_operation_flipped_and_cropped(size, poisoned, monkeypatch):
    """One image for each operation, and one more operation after it."""
    monkeypatch.setattr("pocketvit.kernels.augment_ops.BLOCK", 1024)
    count, codes = len(FUSED_OPS), [OPS.index(op) for op in FUSED_OPS]
    images = noise(count, *size)
    value = np.stack([arguments(op, size)[1, 6] for op in FUSED_OPS])
    ops = OpTable(np.array([codes, codes[::-1]], np.int8).T, np.array([value, value[::-1]]).T)
    drawn = table_for(images, crop_pad=3)
    table = ImageTable(np.arange(count) % 2 == 0, drawn.shift, ops, drawn.erase)
    assert torch.equal(augment(images, table, kernels="fused"), augment_reference(images, table))


@in_interpreter
@pytest.mark.parametrize("block", [128, 512, 2048])
def test_any_block_gives_the_same(block, poisoned):
    from pocketvit.kernels import augment_ops as ops

    images = noise(6, 13, 11)
    value = np.array([[0.2], [20.0], [1.5], [0.4], [0.0], [0.0]])
    codes = [OPS.index(op) for op in ("shear_y", "rotate", "sharpness", "contrast", "autocontrast", "equalize")]
    rows = ops.table_rows(np.zeros(6, bool), np.full((6, 2), -2), np.array(codes)[:, None], value)
    small, usual = (ops.run_stages(images, torch.from_numpy(rows), block=b) for b in (block, None))
    assert torch.equal(small, usual)


@in_interpreter
def test_strided_and_missing_images():
    images = noise(4, 9, 14)[::2, :, ::2]
    table = table_for(images)
    assert torch.equal(augment(images, table, kernels="fused"), augment_reference(images, table))
    assert augment(images[:0], table[:0], kernels="fused").shape == (0, 9, 7, 3)


@in_interpreter
def test_large_images_run_the_twin():
    pytest.importorskip("triton")
    images = noise(1, 2, 1025)
    assert "1025 × 2 pixels (width × height) have a side over 1024" in supported(images)
    table = table_for(images)
    assert torch.equal(augment(images, table), augment_reference(images, table))


@in_interpreter
@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels_run_the_twin(channels):
    images = noise(4, 5, 6).repeat(1, 1, 1, 2)[..., :channels]
    assert supported(images) == f"images of {channels} channels, not 3"
    table = table_for(images, policy="none")
    assert torch.equal(augment(images, table), augment_reference(images, table))
    with pytest.raises(InputError, match=f"images of {channels} channels, not 3; use auto"):
        augment(images, table, kernels="fused")


@natively
def test_the_kernel_knows_the_operations_by_their_codes():
    kernel = pytest.importorskip("pocketvit.kernels.augment_triton", reason="needs Triton")
    assert [getattr(kernel, op.upper()).value for op in OPS[1:15]] == list(range(1, 15))
    assert all(getattr(kernel, op.upper()).value == OPS.index(op) for op in FUSED_OPS[1:])


@in_interpreter
def test_an_operation_without_a_kernel_runs_the_twin_and_says_so(monkeypatch):
    images = noise(2, 5, 6)
    drawn = table_for(images, crop_pad=0)
    tables = {
        op: ImageTable(
            drawn.flip, drawn.shift, OpTable(np.full((2, 1), OPS.index(op), np.int8), np.ones((2, 1))), drawn.erase
        )
        for op in ("invert", "equalize")
    }
    monkeypatch.setitem(UNFUSED, OPS.index("invert"), "invert")
    monkeypatch.setitem(IMPLEMENTATIONS, "fused", lambda images, table: None)
    with pytest.warns(UserWarning, match="^the augmentation runs in plain PyTorch: invert has no fused kernel$"):
        assert torch.equal(augment(images, tables["invert"]), augment_reference(images, tables["invert"]))
    assert augment(images, tables["equalize"]) is None, "others still run in the kernel, without a word"
    with pytest.raises(
        InputError, match="is not supported for this augmentation: invert has no fused kernel; use auto"
    ):
        augment(images, tables["invert"], kernels="fused")


@natively
def test_rows_of_the_table():
    ops = pytest.importorskip("pocketvit.kernels.augment_ops", reason="needs Triton")
    code = np.array([[OPS.index("rotate"), 0], [OPS.index("solarize"), OPS.index("rotate")]], np.int8)
    rows = ops.table_rows(np.array([True, False]), np.array([[1, 2], [3, -4]]), code, np.array([[30, 0], [7, -90.0]]))
    assert rows.shape == (2, 2, 8) and rows.dtype == np.int32
    assert rows[..., :4].tolist() == [[[1, 1, 2, 5], [0, 3, -4, 11]], [[0, 0, 0, 0], [0, 0, 0, 5]]]
    expected = [[[3**0.5 / 2, -0.5], [7, 0]], [[0, 0], [0, 1]]]
    np.testing.assert_allclose(rows.view(np.float64)[..., 2:], expected, atol=1e-15)


@natively
def test_the_cpu_runs_the_twin_and_says_so(real_images):
    images = torch.from_numpy(real_images)
    table = table_for(images)
    assert "not on an NVIDIA GPU" in supported(images) or "not installed" in supported(images)
    assert torch.equal(augment(images, table), augment(images, table, kernels="reference"))
    with pytest.raises(InputError, match="kernels='fused' is not supported for this augmentation: .*; use auto"):
        augment(images, table, kernels="fused")
    with pytest.raises(InputError, match="kernels='fast': must be one of auto, fused, reference"):
        augment(images, table, kernels="fast")


@natively
def test_the_twin_in_pieces_gives_the_same(monkeypatch, real_images):
    images = torch.from_numpy(real_images)
    table = table_for(images)
    whole = augment_reference(images, table)
    monkeypatch.setattr("pocketvit.augment.augment.PIECE", 7)
    assert torch.equal(augment_reference(images, table), whole)
