"""Scores computed from a run's test predictions. T is the number of test images, K the number of classes."""

from dataclasses import dataclass
from math import sqrt

import numpy as np

Z_95 = 1.959964  # the standard normal quantile of a two-sided 95 % interval


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """The 95 % Wilson confidence interval of a success rate, given `right` successes in `total` independent trials.

    Unlike the normal approximation p ± z·σ, it stays inside [0, 1] and has a width even at 100 %, which matters for a
    class of 36 images.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference",
        https://doi.org/10.1080/01621459.1927.10502953

    Args:
        right: number of images classified correctly.
        total: number of images, at least 1.
    Returns:
        lower and upper bound, fractions.
    Raises:
        ValueError: not 0 <= right <= total, or total is 0.
    """
    if not 0 <= right <= total or total == 0:
        raise ValueError(f"wilson_interval: {right} correct of {total} is impossible; total must be at least 1")
    rate, z = right / total, Z_95
    centre = rate + z * z / (2 * total)
    spread = z * sqrt(rate * (1 - rate) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities of each row, float64, (T, K)."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """How often class i (row) was predicted as class j (column), int64, (K, K)."""
    cells = labels.astype(np.int64) * num_classes + predicted
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)  # (K * K) -> (K, K)


@dataclass(frozen=True)
class Confusion:
    """A cell of a confusion matrix: off the diagonal, a pair of classes that the model confuses."""

    true: int
    predicted: int
    images: int
    share: float  # of all test images of the true class


def frequent_cells(matrix: np.ndarray, limit: int) -> list[Confusion]:
    """The cells of a confusion matrix (K, K) with the most images, in that order; ties by class numbers.

    Args:
        limit: greatest length of the list; empty cells are left out.
    """
    order = np.argsort(-matrix, axis=None, kind="stable")[: min(limit, np.count_nonzero(matrix))]
    totals = matrix.sum(axis=1)
    pairs = (divmod(int(cell), len(matrix)) for cell in order)
    return [
        Confusion(true, predicted, int(matrix[true, predicted]), float(matrix[true, predicted] / totals[true]))
        for true, predicted in pairs
    ]


def top_confusions(matrix: np.ndarray, limit: int) -> list[Confusion]:
    """The most frequent errors, as `frequent_cells`."""
    cells = frequent_cells(matrix, limit + len(matrix))
    return [cell for cell in cells if cell.true != cell.predicted][:limit]


@dataclass(frozen=True)
class ClassScore:
    """The score of one class on the test set."""

    label: int
    right: int
    total: int
    predicted: int  # images of any class that were predicted as this one

    @property
    def precision(self) -> float | None:
        """The fraction of the images predicted as this class that are of it; None if there are none."""
        return self.right / self.predicted if self.predicted else None

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall, which is `accuracy`; 0 without a correct image."""
        return 2 * self.right / (self.total + self.predicted)

    @property
    def accuracy(self) -> float:
        """The fraction of this class's test images classified correctly."""
        return self.right / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval of `accuracy`."""
        return wilson_interval(self.right, self.total)


def class_scores(matrix: np.ndarray) -> list[ClassScore]:
    """The scores of every class that has test images, in the order of the class numbers."""
    totals, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
    classes = range(len(matrix))
    return [ClassScore(k, int(matrix[k, k]), int(totals[k]), int(predicted[k])) for k in classes if totals[k]]
