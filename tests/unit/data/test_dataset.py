"""The one form of a set: fingerprints, splits, channel statistics."""

import numpy as np
import pytest

from pocketvit.config import DataConfig
from pocketvit.data.dataset import (
    CIFAR10_TEST_FINGERPRINT,
    Dataset,
    Split,
    channel_stats,
    hold_out,
    is_cifar10,
    note_shared,
    stratified_split,
)
from pocketvit.data.splits import split_dataset
from pocketvit.errors import InputError


def some_split(count: int = 20, size: int = 4, seed: int = 0) -> Split:
    images = np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return Split(images, np.arange(count) % 5)


def test_a_set_is_shown_in_a_line():
    """As at the end of a notebook's cell, where the labels and names of all images fill the page."""
    shown = repr(Dataset("flowers", some_split(2_000), some_split(3), tuple("abcde")))
    assert "train=Split(2,000 images of 4 × 4 pixels), test=Split(3 images of 4 × 4 pixels)" in shown
    assert len(shown) < 250


def test_split_takes_by_index():
    split = some_split()
    taken = split.take(np.array([3, 1]))
    assert len(taken) == 2 and taken.labels.tolist() == [3, 1]
    assert np.array_equal(taken.images, split.images[[3, 1]]) and taken.images.base is not split.images


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (np.zeros((2, 4, 4, 3)), np.zeros(2, np.int64)),
        (np.zeros((2, 4, 4, 1), np.uint8), np.zeros(2, np.int64)),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(3, np.int64)),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2, np.int32)),
    ],
)
def test_split_of_another_form_is_refused(images, labels):
    with pytest.raises(ValueError, match="must be"):
        Split(images, labels)


def test_fingerprint_sees_every_change():
    split = some_split()
    prints = {split.fingerprint}
    for change in ("pixel", "label", "missing", "twice", "shape"):
        images, labels = split.images.copy(), split.labels.copy()
        if change == "pixel":
            images[7, 1, 2, 0] ^= 1
        elif change == "label":
            labels[7] += 1
        elif change == "missing":
            images, labels = images[1:], labels[1:]
        elif change == "twice":
            images, labels = np.concatenate([images, images[:1]]), np.append(labels, labels[0])
        else:
            images = images.reshape(20, 2, 8, 3)
        prints.add(Split(images, labels).fingerprint)
    assert len(prints) == 6


def test_fingerprint_is_pinned():
    """A changed fingerprint would change every `data_fingerprint` in results/: that takes a decision."""
    assert some_split().fingerprint == "15d02a9ce97ef6eb9609f75c5a3e8ce4"


def test_images_of_both_kinds_are_counted():
    """Those that differ in their label or size are others."""
    trained = some_split().digests
    copied = some_split().take(np.array([3, 3, 4]))
    assert note_shared("images", copied.digests, trained, "those") == (
        "3 of the 3 images are among those, pixel for pixel and with the same label: on new images the accuracy may be lower",
    )
    one = np.append(some_split(1_500, seed=1).digests, copied.digests[:1])
    assert note_shared("test images", one, trained, "all")[0].startswith("1 of the 1,501 test images is among all, ")
    relabelled, reshaped = (
        Split(copied.images, copied.labels + 1),
        Split(copied.images.reshape(3, 2, 8, 3), copied.labels),
    )
    for others in (relabelled, reshaped, some_split(seed=1), copied.take(np.arange(0))):
        assert note_shared("images", others.digests, trained, "those") == ()


def test_validation_images_that_are_trained_on_are_told():
    """Of ten pairs of twins in each class, those whose twin is held out with them are not."""
    images = np.repeat(np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), dtype=np.uint8), 2, axis=0)
    labels, names = np.repeat([0, 1], 20), ("a", "b")
    dataset = Dataset("twins", Split(images, labels), some_split(5).take(np.array([0, 1])), names)
    splits = split_dataset(dataset, DataConfig(val_frac=0.5))
    parted = sum(any(np.array_equal(image, other) for other in splits.train.images) for image in splits.val.images)
    assert 0 < parted < 20
    assert splits.notes[-1].startswith(f"{parted} of the 20 validation images are among the training images, ")


def test_dataset_fingerprint_tells_train_from_test():
    a, b = some_split(seed=1), some_split(seed=2)
    names = tuple("abcde")
    assert Dataset("x", a, b, names).fingerprint != Dataset("x", b, a, names).fingerprint
    assert Dataset("x", a, b, names).fingerprint == Dataset("y", a, b, names).fingerprint
    assert Dataset("x", a, b, names).image_size == (4, 4) and Dataset("x", a, b, names).num_classes == 5
    assert not is_cifar10(Dataset("x", a, b, names))


def test_stratified_split_rounds_per_class():
    labels = np.repeat([0, 1, 2], [10, 14, 3])
    kept, held = stratified_split(labels, 0.1, seed=0)
    assert np.bincount(labels[held]).tolist() == [1, 1, 1]  # 1, 1.4 and 0.3, but at least one
    assert sorted([*kept, *held]) == list(range(27)) and kept.dtype == held.dtype == np.int64
    kept, held = stratified_split(labels, 0.99, seed=0)
    assert np.bincount(labels[kept]).tolist() == [1, 1, 1]  # and at least one is kept


def test_stratified_split_is_pinned():
    """Which images are held out is part of every result."""
    assert stratified_split(np.arange(40) % 4, 0.25, seed=3)[1].tolist() == [3, 5, 24, 34, 35, 36, 37, 38]


@pytest.mark.parametrize("frac", [0, 1, -0.1, 1.5, float("nan")])
def test_fraction_outside_is_refused(frac):
    with pytest.raises(InputError, match="between 0 and 1"):
        stratified_split(np.arange(10) % 2, frac, 0)


def test_single_image_cannot_be_split():
    with pytest.raises(InputError, match="class 1 has a single image"):
        stratified_split(np.array([0, 0, 1, 2, 2]), 0.5, 0)
    with pytest.raises(InputError, match="class bee has a single image"):
        stratified_split(np.array([0, 0, 1, 2, 2]), 0.5, 0, ("ant", "bee", "cat"))


def test_hold_out_exact_numbers():
    labels = np.repeat([0, 1, 2], 5)
    kept, held = hold_out(labels, np.array([2, 0, 5]), seed=1)
    assert np.bincount(labels[held], minlength=3).tolist() == [2, 0, 5] and len(kept) == 8


def test_channel_stats_equal_numpy():
    images = np.random.default_rng(0).integers(0, 256, (5000, 3, 5, 3), dtype=np.uint8)  # more than one piece
    images[..., 1] //= 2
    mean, std = channel_stats(images)
    assert np.allclose(mean, images.mean((0, 1, 2)) / 255, rtol=1e-12)
    assert np.allclose(std, images.std((0, 1, 2)) / 255, rtol=1e-12)
    assert mean.dtype == std.dtype == np.float64
    assert channel_stats(np.full((2, 2, 2, 3), 255, np.uint8))[1].tolist() == [0, 0, 0]


def test_real_test_split_is_recognised(cifar_folder):
    from pocketvit.data.formats import parquet

    decoded = parquet.read(next(cifar_folder.glob("test-*.parquet")))
    assert decoded.train.fingerprint == CIFAR10_TEST_FINGERPRINT
    assert np.bincount(decoded.train.labels).tolist() == [1000] * 10
    assert decoded.class_names[:2] == ("airplane", "automobile")
