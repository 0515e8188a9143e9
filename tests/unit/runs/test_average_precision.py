"""Average precision against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from pocketvit.runs.average_precision import average_precision, class_precisions, mean_precision


@pytest.mark.parametrize("ties", [1, 4, 1000])
@pytest.mark.parametrize("size", [1, 2, 40])
def test_average_precision_is_scikit_learns_also_with_equal_scores(size, ties):
    rng = np.random.default_rng(size)
    for _ in range(20):
        scores, positive = (rng.integers(0, ties, size) / 7).astype(np.float32), rng.random(size) < 0.3
        positive[rng.integers(size)] = True
        assert average_precision(scores, positive) == pytest.approx(
            average_precision_score(positive, scores), abs=1e-12
        )


def test_the_mean_is_over_classes_that_have_images():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(30, 4)), rng.random((30, 4)) < 0.4
    labels[:, 2] = False
    found = class_precisions(scores, labels, ("ant", "bee", "cat", "dog"))
    assert list(found) == ["ant", "bee", "dog"]
    wanted = average_precision_score(labels[:, [0, 1, 3]], scores[:, [0, 1, 3]], average="macro")
    assert mean_precision(found) == pytest.approx(wanted, abs=1e-12)
