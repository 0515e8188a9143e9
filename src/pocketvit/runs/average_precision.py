"""Average precision: how well a model's scores rank the images that have a class above those that do not.

Shapes: T images, K classes.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """The mean, over the images that have a class, of the precision among those that score at least as high.

    As scikit-learn's `average_precision_score`, also where scores are equal. Chance gives about the share of such images.

    Args:
        scores: (T,).
        positive: which images have the class, bool, (T,), at least one.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, found = scores[order], np.cumsum(positive[order])  # (T,) each
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # the last image of each distinct score
    hits = found[ends]
    return float((np.diff(hits, prepend=0) * hits / (ends + 1)).sum() / hits[-1])


def class_precisions(scores: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> dict[str, float]:
    """The `average_precision` of each class that has images, by its name.

    Args:
        scores: (T, K).
        labels: whether an image has each class, bool, (T, K).
        class_names: K names.
    """
    return {
        name: average_precision(scores[:, k], labels[:, k]) for k, name in enumerate(class_names) if labels[:, k].any()
    }


def mean_precision(precisions: Mapping[str, float]) -> float:
    """The mean over classes (mAP, macro), given `class_precisions`."""
    return fmean(precisions.values())
