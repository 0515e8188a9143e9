"""Uneven classes evened out, `data.balance`: by weights in the loss, or by as many images of each class in a pass.

Shapes: N images, K classes.
"""

import numpy as np

from pocketvit.randomness import Stream, permutation, raw


def class_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """A weight for each class, in inverse proportion to its number of images and 1 in the mean over the images.

    As scikit-learn's `compute_class_weight("balanced")`; classes without images have weight 1 and are not counted.

    Args:
        labels: class numbers, int64, (N,).
        num_classes: K.
    Returns:
        float64, (K,).
    """
    counts = np.bincount(labels, minlength=num_classes)
    present = np.count_nonzero(counts)
    return np.where(counts > 0, len(labels) / (present * np.maximum(counts, 1)), 1.0)


def balanced_order(labels: np.ndarray, *, seed: int, pass_index: int, length: int) -> np.ndarray:
    """The images of a pass in which the classes take turns, then shuffled; the same whatever ran before.

    So each class comes equally often, but for one image. Of a large class, a pass has other images every time; those of a
    small class are repeated, each as often as the others but for once.

    Args:
        labels: class numbers, int64, (N,).
        length: of the pass.
    Returns:
        indices of images, int64, (length,).
    """
    sizes = np.unique(labels, return_counts=True)[1]  # of the classes that have images
    shuffled = permutation(seed, Stream.ORDER, pass_index, len(labels))
    members = shuffled[np.argsort(labels[shuffled], kind="stable")]  # class by class, each class in random order
    turns = np.arange(length) + pass_index * length  # through the passes, so that none has the same classes in excess
    kind, turn = turns % len(sizes), np.arange(length) // len(sizes)
    chosen = members[(np.cumsum(sizes) - sizes)[kind] + turn % sizes[kind]]
    return chosen[np.argsort(raw(seed, Stream.BALANCE, pass_index, length), kind="stable")]


def balance_note(choice: str, labels: np.ndarray) -> str | None:
    """A note that `data.balance` has no effect because the classes are even; else None."""
    sizes = set(np.unique(labels, return_counts=True)[1].tolist())
    if choice == "none" or len(sizes) > 1:
        return None
    return f"data.balance={choice} has no effect: every class has {sizes.pop():,} training images"
