"""The report's figures against published values, SciPy and scikit-learn."""

import numpy as np
import pytest
from scipy.special import log_softmax as scipy_log_softmax
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix
from sklearn.metrics import precision_recall_fscore_support

from pocketvit.report.calibration import Bin, bins_of, calibration, calibration_error
from pocketvit.report.curves import smoothing_note
from pocketvit.report.scores import class_scores, confusion_matrix, log_softmax, top_confusions, wilson_interval


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_as_published(right, total, low, high):
    assert wilson_interval(right, total) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_at_the_ends():
    low, high = wilson_interval(36, 36)
    assert 0.9 < low < 0.91 and high == 1.0
    assert wilson_interval(0, 5)[0] == 0.0


@pytest.mark.parametrize(("right", "total"), [(0, 0), (3, 2), (-1, 2)])
def test_wilson_interval_refuses_what_cannot_be(right, total):
    with pytest.raises(ValueError, match="is impossible; total must be at least 1"):
        wilson_interval(right, total)


def test_log_softmax_equals_scipy_also_for_large_logits():
    logits = np.random.default_rng(0).normal(0, 300, (50, 7)).astype(np.float32)
    np.testing.assert_allclose(log_softmax(logits), scipy_log_softmax(logits.astype(np.float64), axis=1), atol=1e-9)


def test_confusion_matrix_equals_scikit_learn():
    labels, predicted = np.random.default_rng(0).integers(0, 6, (2, 500))
    expected = sklearn_confusion_matrix(labels, predicted, labels=range(7))  # class 6 never occurs
    np.testing.assert_array_equal(confusion_matrix(labels, predicted, 7), expected)


def test_top_confusions_are_sorted_and_never_empty_pairs():
    matrix = np.array([[9, 1, 0], [4, 5, 1], [0, 0, 0]])
    found = [(c.true, c.predicted, c.images, c.share) for c in top_confusions(matrix, 5)]
    assert found == [(1, 0, 4, 0.4), (0, 1, 1, 0.1), (1, 2, 1, 0.1)]
    assert len(top_confusions(matrix, 2)) == 2
    assert matrix[0, 0] == 9, "the matrix given is left as it was"


def test_class_scores_leave_out_classes_without_test_images():
    scores = class_scores(np.array([[9, 1, 0], [4, 6, 0], [0, 0, 0]]))
    assert [(score.label, score.accuracy) for score in scores] == [(0, 0.9), (1, 0.6)]
    assert scores[0].interval == wilson_interval(9, 10)


def test_precision_recall_and_f1_equal_scikit_learn():
    labels, predicted = np.random.default_rng(0).integers(0, 6, (2, 300))
    predicted[predicted == 4] = 3  # a class that is never predicted
    want = precision_recall_fscore_support(labels, predicted, zero_division=0)
    scores = class_scores(confusion_matrix(labels, predicted, 7))
    assert [score.precision or 0 for score in scores] == pytest.approx(want[0])
    assert [score.accuracy for score in scores] == pytest.approx(want[1])
    assert [score.f1 for score in scores] == pytest.approx(want[2])
    assert scores[4].precision is None and scores[4].f1 == 0


def test_calibration_error_equals_a_loop():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 1.5, (400, 5)), rng.integers(0, 5, 400)
    shares = np.exp(log_softmax(logits))
    bins, error = [[] for _ in range(15)], 0.0
    for row, label in zip(shares, labels):
        number = next(k for k in range(15) if row.max() <= (k + 1) / 15)
        bins[number].append((row.max(), row.argmax() == label))
    for held in bins:
        if held:
            confidence, right = np.mean(held, axis=0)
            error += len(held) / 400 * abs(confidence - right)
    found = bins_of(np.log(shares), labels)
    assert [one.images for one in found] == [len(held) for held in bins if held]
    assert calibration_error(found) == pytest.approx(error) and error > 0.1


def test_a_model_that_is_right_as_often_as_it_says_has_no_error():
    assert calibration_error([Bin(10, 7, 0.7), Bin(30, 27, 0.9)]) == pytest.approx(0)
    one = np.log(np.full((8, 4), 1e-9) + np.eye(4)[[0, 1, 2, 3] * 2])
    sure = calibration(one, np.array([0, 1, 2, 3, 0, 1, 2, 0]), 0.1)
    assert sure["error"] == pytest.approx(1 / 8) and not sure["cautious"] and sure["smoothing"] is None
    half = calibration(np.log(np.array([[0.6, 0.4]] * 4)), np.zeros(4, int), 0.1)
    assert half["error"] == pytest.approx(0.4) and half["cautious"] and half["smoothing"] == 0.1


@pytest.mark.parametrize("smoothing", [5e-324, 1e-300])
def test_label_smoothing_may_be_as_small_as_it_likes(smoothing):
    assert "a training loss of 0.000" in smoothing_note(smoothing, 10)
