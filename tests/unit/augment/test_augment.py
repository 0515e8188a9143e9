"""Flip, crop, erase: against plain NumPy loops; the table's addresses and frequencies."""

import numpy as np
import pytest
import torch

from pocketvit.augment.augment import augment, draw_images, flip_and_crop, normalise, normalise_and_erase
from pocketvit.config import AugmentConfig

MEAN, STD = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.3])


def table(size=200, image_size=(32, 32), **config):
    return draw_images(AugmentConfig(**config), seed=1, pass_index=2, size=size, image_size=image_size)


def test_flip_and_crop_equals_padding_and_slicing(real_images):
    drawn = table(len(real_images))
    moved = flip_and_crop(torch.from_numpy(real_images), torch.from_numpy(drawn.flip), torch.from_numpy(drawn.shift))
    for image, flip, (down, right), got in zip(real_images, drawn.flip, drawn.shift, moved.numpy(), strict=True):
        image = image[:, ::-1] if flip else image
        padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
        assert (got == padded[4 + down : 36 + down, 4 + right : 36 + right]).all()
    assert drawn.flip.any() and (drawn.shift != 0).any()


def test_everything_off_changes_nothing(real_images):
    off = table(len(real_images), flip_prob=0.0, crop_pad=0, policy="none", erase_prob=0.0)
    images = torch.from_numpy(real_images)
    assert torch.equal(augment(images, off), images)
    erase = torch.from_numpy(off.erase)
    assert torch.equal(normalise_and_erase(images, MEAN, STD, erase), normalise(images, MEAN, STD))


def test_erasing_fills_the_box_with_the_raw_mean(real_images):
    drawn = table(len(real_images), erase_prob=1.0)
    got = normalise_and_erase(torch.from_numpy(real_images), MEAN, STD, torch.from_numpy(drawn.erase)).numpy()
    for image, (top, left, height, width), pixels in zip(real_images, drawn.erase, got, strict=True):
        want = (image.astype(np.float32) / 255 - MEAN.numpy()) / STD.numpy()
        want[top : top + height, left : left + width] = MEAN.numpy()
        np.testing.assert_allclose(pixels.transpose(1, 2, 0), want, atol=1e-6)


def test_erased_boxes_have_the_asked_area_and_aspect():
    boxes = table(20_000, erase_prob=1.0, erase_area=(0.1, 0.2), erase_aspect=(0.5, 2.0)).erase
    top, left, height, width = boxes.T
    assert (height > 0).all(), "every try sequence ends in a box here"
    assert (top >= 0).all() and (top + height <= 32).all() and (left >= 0).all() and (left + width <= 32).all()
    area, aspect = height * width / 1024, height / width
    assert 0.085 < area.min() and area.max() < 0.22, "rounding to whole pixels moves the area a little"
    assert abs(area.mean() - 0.15) < 2e-3
    assert 0.4 < aspect.min() and aspect.max() < 2.6


def test_boxes_that_never_fit_erase_nothing():
    assert not table(50, erase_prob=1.0, erase_area=(1.0, 1.0), erase_aspect=(1.0, 1.0)).erase.any()


def test_probabilities_are_met():
    drawn = table(50_000, policy="none")
    assert abs(drawn.flip.mean() - 0.5) < 0.01
    assert abs((drawn.erase[:, 2] > 0).mean() - 0.25) < 0.01
    values, counts = np.unique(drawn.shift, return_counts=True)
    assert values.tolist() == list(range(-4, 5))
    np.testing.assert_allclose(counts / counts.sum(), 1 / 9, atol=0.005)


def test_a_row_belongs_to_its_image_whatever_the_size():
    few, many = table(10), table(1000)
    for name in ("flip", "shift", "erase"):
        assert (getattr(few, name) == getattr(many, name)[:10]).all()
    assert (few.ops.op == many.ops.op[:10]).all() and (few.ops.value == many.ops.value[:10]).all()


def test_switching_one_part_off_leaves_the_others_as_they_were():
    full, part = table(500), table(500, policy="none", erase_prob=0.0)
    assert (full.flip == part.flip).all() and (full.shift == part.shift).all()


@pytest.mark.parametrize("size", [(8, 8), (16, 24)])
def test_other_image_sizes(size):
    drawn = table(300, image_size=size)
    images = torch.randint(0, 256, (300, *size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert augment(images, drawn).shape == images.shape
