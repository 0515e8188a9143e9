"""Whether a model is right as often as its probabilities say.

T is the number of test images, K the number of classes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pocketvit.report import text
from pocketvit.report.plots import Series, line_plot
from pocketvit.report.scores import wilson_interval

BINS = 15  # as in the paper below


@dataclass(frozen=True)
class Bin:
    """The images whose greatest probability is in one interval."""

    images: int
    right: int
    confidence: float  # mean of their greatest probabilities


def bins_of(log_probabilities: np.ndarray, labels: np.ndarray) -> list[Bin]:
    """The test images by their greatest probability, in intervals of one width; empty ones are left out.

    Args:
        log_probabilities: (T, K).
        labels: (T,).
    """
    confidence = np.exp(log_probabilities.max(axis=1))  # (T,)
    right = log_probabilities.argmax(axis=1) == labels
    place = np.clip(np.ceil(confidence * BINS) - 1, 0, BINS - 1)
    members = [place == k for k in range(BINS)]
    return [Bin(int(m.sum()), int(right[m].sum()), float(confidence[m].mean())) for m in members if m.any()]


def calibration_error(bins: list[Bin]) -> float:
    """Expected calibration error: the mean over the images of how far accuracy and confidence of their bin are apart.

    Source: Guo et al. 2017, https://arxiv.org/abs/1706.04599, equation 3
    """
    total = sum(one.images for one in bins)
    return sum(abs(one.right - one.images * one.confidence) for one in bins) / total


def calibration(log_probabilities: np.ndarray, labels: np.ndarray, smoothing: Any) -> dict:
    """The section of the report: the reliability diagram and its summary.

    Args:
        smoothing: `optim.label_smoothing` of the run, if known.
    """
    bins = bins_of(log_probabilities, labels)
    intervals = [wilson_interval(one.right, one.images) for one in bins]
    band = [low for low, _ in intervals], [high for _, high in intervals]
    confidences, accuracies = [one.confidence for one in bins], [one.right / one.images for one in bins]
    error, total = calibration_error(bins), len(labels)
    confidence = sum(one.images * one.confidence for one in bins) / total
    accuracy = sum(one.right for one in bins) / total
    plot = line_plot(
        "Reliability",
        [Series("the model", confidences, accuracies, band=band), Series("calibrated", [0, 1], [0, 1], "muted", dashed=True)],
        description=f"Accuracy by probability; expected calibration error {text.percent(error)}",
        x_label="probability of the predicted class", x_format=text.axis_percent, y_format=text.axis_percent,
        y_range=(0.0, 1.0),
    )  # fmt: skip
    cautious = accuracy > confidence
    return {
        "plot": plot,
        "error": error,
        "confidence": confidence,
        "accuracy": accuracy,
        "cautious": cautious,
        "smoothing": smoothing if cautious and isinstance(smoothing, float) and smoothing > 0 else None,
    }
