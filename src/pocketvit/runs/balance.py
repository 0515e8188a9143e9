"""Accuracy on uneven classes, where always predicting the largest class looks good."""

from collections import Counter
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any, TypedDict

from pocketvit.terminal import NAME, printable

TRY = "; if they are rare in training, try data.balance=sampling or data.balance=loss"
UNEVEN = 1.5  # ratio of test images in the largest and the smallest class from which classes are uneven


class Balance(TypedDict):
    """What to report with an accuracy on uneven classes; None or empty for others."""

    balanced_accuracy: float | None
    """Mean of the classes' accuracies."""
    majority_share: float | None
    """Of the largest class: the accuracy of always predicting it."""
    classes_at_zero: tuple[str, ...]
    """Classes without a correctly classified image."""


NOT_COUNTED: Balance = {"balanced_accuracy": None, "majority_share": None, "classes_at_zero": ()}
"""Of even classes, and where an image may have several."""


def class_balance(per_class: Mapping[str, float], labels: Iterable[int]) -> Balance:
    """The `Balance` of images with these labels, given the accuracy of each class that occurs."""
    sizes = Counter(labels).values()
    if max(sizes) < UNEVEN * min(sizes):
        return NOT_COUNTED
    zero = tuple(name for name, value in per_class.items() if value == 0)
    balanced, share = fmean(per_class.values()), max(sizes) / sum(sizes)
    return {"balanced_accuracy": balanced, "majority_share": share, "classes_at_zero": zero}


def balance_lines(found: Mapping[str, Any]) -> list[str]:
    """The lines to print below an accuracy, given the fields of `Balance`."""
    balanced, share, zero = (found[name] for name in Balance.__annotations__)
    if balanced is None or share is None:
        return []
    lines = [
        f"balanced accuracy {balanced:.2%} (mean over classes; the largest class has {share:.2%} of the test images)"
    ]
    if zero:
        names = ", ".join(printable(name, NAME) for name in zero[:5])
        names += f" and {len(zero) - 5} more" if len(zero) > 5 else ""
        lines.append(f"CAUTION: no test image of these classes is classified correctly (0 %): {names}{TRY}")
    return lines
