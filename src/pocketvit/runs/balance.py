"""What an accuracy hides where classes are of uneven sizes and always answering the largest looks good."""

from collections import Counter
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any, TypedDict

UNEVEN = 1.5
"""Size of the largest class over that of the smallest, by test images, from which classes are called uneven."""


class Balance(TypedDict):
    """What to say beside an accuracy on uneven classes; None or nothing on others."""

    balanced_accuracy: float | None
    """Mean of the classes' accuracies."""
    majority_share: float | None
    """Of the largest class among the images: the accuracy of always answering it."""
    classes_at_zero: tuple[str, ...]
    """Classes of which no image is classified correctly."""


def class_balance(per_class: Mapping[str, float], labels: Iterable[int]) -> Balance:
    """What to say beside an accuracy on images with these labels, given that of each class that occurs."""
    sizes = Counter(labels).values()
    if max(sizes) < UNEVEN * min(sizes):
        return {"balanced_accuracy": None, "majority_share": None, "classes_at_zero": ()}
    zero = tuple(name for name, value in per_class.items() if value == 0)
    balanced, share = fmean(per_class.values()), max(sizes) / sum(sizes)
    return {"balanced_accuracy": balanced, "majority_share": share, "classes_at_zero": zero}


def balance_lines(found: Mapping[str, Any]) -> list[str]:
    """What to print below an accuracy, given what `Balance` holds."""
    balanced, share, zero = (found[name] for name in Balance.__annotations__)
    if balanced is None:
        return []
    names = ", ".join(zero[:5]) + (f" and {len(zero) - 5} more" if len(zero) > 5 else "")
    lines = [
        f"balanced accuracy {balanced:.2%} (mean over classes; the largest class has {share:.2%} of the test images)"
    ]
    return lines + ([f"CAUTION: no test image of these classes is classified correctly (0 %): {names}"] if zero else [])
