"""What must hold for any set: fingerprints forget order only, splits are fair, statistics are exact."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pocketvit.data.dataset import Split, channel_stats, hold_out, stratified_split
from pocketvit.errors import InputError

few_images = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 8), st.integers(1, 4), st.integers(1, 4), st.just(3)), elements=st.integers(0, 3)
)
class_sizes = st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(any)
seeds = st.integers(0, 2**63)


def labels_of(sizes: list[int], seed: int) -> np.ndarray:
    """Labels with so many of each class, in some order."""
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))


@given(images=few_images, data=st.data())
def test_fingerprint_forgets_the_order(images, data):
    labels = np.array(data.draw(st.lists(st.integers(0, 2), min_size=len(images), max_size=len(images))))
    split = Split(images, labels)
    order = np.array(data.draw(st.permutations(range(len(images)))))
    assert split.take(order).fingerprint == split.fingerprint


@given(images=few_images, data=st.data())
def test_fingerprint_remembers_the_rest(images, data):
    """Two sets with the same shapes have the same fingerprint only if they hold the same labelled images."""
    labels, other_labels = (
        np.array(data.draw(st.lists(st.integers(0, 1), min_size=len(images), max_size=len(images)))) for _ in range(2)
    )
    other = data.draw(hnp.arrays(np.uint8, images.shape, elements=st.integers(0, 3)))

    def content(images, labels):
        return sorted((image.tobytes(), label) for image, label in zip(images, labels.tolist()))

    same = content(images, labels) == content(other, other_labels)
    assert (Split(images, labels).fingerprint == Split(other, other_labels).fingerprint) == same


@given(images=few_images, changed=st.data())
def test_every_bit_counts(images, changed):
    labels = np.zeros(len(images), np.int64)
    position = changed.draw(st.integers(0, images.size - 1))
    flipped = images.copy()
    flipped.flat[position] ^= np.uint8(1 << changed.draw(st.integers(0, 7)))
    assert Split(flipped, labels).fingerprint != Split(images, labels).fingerprint


@given(sizes=class_sizes, frac=st.floats(0.001, 0.999), seed=seeds)
def test_stratified_split_is_fair(sizes, frac, seed):
    labels = labels_of(sizes, seed % 1000)
    if 1 in sizes:
        with pytest.raises(InputError, match=f"class {sizes.index(1)} has a single image"):
            stratified_split(labels, frac, seed)
        return
    kept, held = stratified_split(labels, frac, seed)
    assert np.array_equal(np.sort(np.concatenate([kept, held])), np.arange(len(labels)))  # each image once
    assert (np.diff(kept) > 0).all() and (np.diff(held) > 0).all()
    counts = np.bincount(labels[held], minlength=len(sizes))
    for size, count in zip(sizes, counts):
        assert count == (min(max(round(frac * size), 1), size - 1) if size else 0)
    assert all(np.array_equal(a, b) for a, b in zip(stratified_split(labels, frac, seed), (kept, held)))


@settings(max_examples=30)
@given(sizes=class_sizes, seed=seeds, data=st.data())
def test_hold_out_takes_what_is_asked(sizes, seed, data):
    labels = labels_of(sizes, seed % 1000)
    asked = np.array([data.draw(st.integers(0, size)) for size in sizes])
    kept, held = hold_out(labels, asked, seed)
    assert np.bincount(labels[held], minlength=len(sizes)).tolist() == asked.tolist()
    assert not set(kept) & set(held) and len(kept) + len(held) == len(labels)


def test_every_image_is_held_out_equally_often():
    """Over 2,000 seeds, each of 20 images is among the 25 % about 500 times (5 standard deviations are 97)."""
    labels = np.arange(20) % 5
    times = sum(np.bincount(stratified_split(labels, 0.25, seed)[1], minlength=20) for seed in range(2000))
    assert times.sum() == 2000 * 5 and abs(times - 500).max() < 97


@given(images=few_images, copies=st.integers(1, 3))
def test_channel_stats_are_those_of_the_pixels(images, copies):
    mean, std = channel_stats(images)
    assert np.allclose(mean, images.mean((0, 1, 2)) / 255, rtol=1e-12, atol=0)
    assert np.allclose(std, images.std((0, 1, 2)) / 255, rtol=1e-9, atol=1e-12)
    repeated = channel_stats(np.concatenate([images] * copies)[::-1])
    assert np.array_equal(repeated[0], mean) or np.allclose(repeated[0], mean, rtol=1e-15)
