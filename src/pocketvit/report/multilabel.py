"""What a run's report says where an image may have several classes: average precision in place of accuracy.

T is the number of test images, K the number of classes.
"""

from typing import Any

import numpy as np

from pocketvit.report import text
from pocketvit.report.by_class import MAX_LISTED_CLASSES, MAX_TABLE_CLASSES
from pocketvit.report.scores import ClassScore
from pocketvit.runs.average_precision import class_precisions, mean_precision
from pocketvit.runs.finished import Predictions
from pocketvit.runs.result import RunResult

DISAGREEMENT = 0.002  # of mAP between result.json and the predictions, beyond which they are not of one run


def probabilities(logits: np.ndarray) -> np.ndarray:
    """The probability of each class of each image, float64, (T, K)."""
    return 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -500, 500)))


def test_loss(predictions: Predictions) -> float:
    """The mean binary cross-entropy over images and classes."""
    logits = predictions.logits.astype(np.float64)
    return float((np.logaddexp(0, logits) - logits * predictions.labels).mean())


def headline(result: RunResult, predictions: Predictions) -> dict[str, Any]:
    """The mean average precision after the last step, and whether the stored predictions agree."""
    found = mean_precision(class_precisions(predictions.logits, predictions.labels, predictions.class_names))
    score = found if result.test_map is None else result.test_map
    return {
        "figure": score,
        "decimals": text.percent_decimals(len(predictions.labels)),
        "total": len(predictions.labels),
        "disagreement": found if abs(found - score) > DISAGREEMENT else None,
    }


def classes(predictions: Predictions) -> dict[str, Any]:
    """Average precision, and precision, recall and F1 at 50 %, of every class that has test images."""
    names, labels = predictions.class_names, predictions.labels
    chosen = predictions.logits >= 0
    precisions = class_precisions(predictions.logits, labels, names)
    rows = [
        {
            "name": name,
            "precision": precisions[name],
            "images": int(labels[:, k].sum()),
            "chance": float(labels[:, k].mean()),
            "score": ClassScore(k, *(int(x.sum()) for x in (labels[:, k] & chosen[:, k], labels[:, k], chosen[:, k]))),
        }
        for k, name in enumerate(names)
        if name in precisions
    ]
    many = len(rows) > MAX_TABLE_CLASSES
    return {
        "rows": (sorted(rows, key=lambda row: row["precision"]) if many else rows)[:MAX_LISTED_CLASSES],
        "overall": mean_precision(precisions),
        "many": many,
        "left_out": max(0, len(rows) - MAX_LISTED_CLASSES),
        "unmeasured": [name for name in names if name not in precisions],
    }


def classes_of(predictions: Predictions, row: int) -> str:
    """A test image's classes in words."""
    pairs = zip(predictions.class_names, predictions.labels[row], strict=True)
    return " + ".join(name for name, one in pairs if one) or "of no class"


def error(predictions: Predictions, row: int) -> dict[str, Any]:
    """A test image's classes, and the wrong answers: what is wrong, the class and its probability, worst first."""
    names, has, shares = predictions.class_names, predictions.labels[row], probabilities(predictions.logits[row])
    wrong = [k for k in np.argsort(-np.abs(shares - has), kind="stable") if (shares[k] >= 0.5) != has[k]]
    return {
        "true": classes_of(predictions, row),
        "answers": [("missed" if has[k] else "not there", names[k], float(shares[k])) for k in wrong],
    }
