"""Convert the labels in files, numbers or names, to class numbers 0, 1, 2, ….

Names are numbered in alphabetical order unless the file gives an order. Numbers without names must use every class from
0: a gap means that the file counts from 1, or that the column is not a class.
"""

from collections.abc import Callable, Sequence

import numpy as np

from pocketvit.errors import InputError


def find_class_names(*splits: np.ndarray) -> tuple[str, ...]:
    """The classes of a data set that does not list them: the names that occur, or as many numbers as occur, from 0.

    Args:
        splits: the labels of each split, integers or strings, (N,).
    """
    present: set[int | str] = set()
    for values in splits:  # one by one: joined, large integers become floats
        known = values.dtype.kind in "iuU"  # `number_labels` refuses all others, which perhaps cannot be sorted
        present |= set(np.unique(values).tolist() if known else map(str, values.tolist()))
    if all(isinstance(value, int) for value in present):
        return tuple(str(number) for number in range(len(present)))
    return tuple(sorted(map(str, present)))


def number_labels(
    values: np.ndarray, class_names: Sequence[str], where: Callable[[int], str], *, listed: bool = True
) -> np.ndarray:
    """Convert labels to class numbers.

    Args:
        values: labels, integers or strings, (N,).
        class_names: the classes in their order.
        where: name of the i-th label in messages, such as "train.parquet, row 7".
        listed: whether the data set lists its classes; else they are those of `find_class_names`.
    Returns:
        class numbers, int64, (N,).
    Raises:
        InputError: a label outside the classes, or neither integer nor string.
    """
    if values.dtype.kind in "iu":
        outside = (values < 0) | (values >= len(class_names))
        numbers = values.astype(np.int64)
    elif values.dtype.kind == "U":
        number_of = {name: number for number, name in enumerate(class_names)}
        numbers = np.array([number_of.get(name, -1) for name in values.tolist()], dtype=np.int64)
        outside = numbers < 0
    else:
        raise InputError(f"{where(0)}: the label is {values.dtype}, neither an integer nor a class name")
    if outside.any():
        i = int(np.flatnonzero(outside)[0])
        if not listed:
            raise InputError(
                f"{where(i)}: label {values[i].item()}, but only {len(class_names)} different labels occur; without "
                f"class names they must be 0 to {len(class_names) - 1}, each of them"
            )
        raise InputError(
            f"{where(i)}: label {values[i].item()!r} is outside the {len(class_names)} classes, "
            f"which are {class_names[0]} to {class_names[-1]} (numbered from 0)"
        )
    return numbers
