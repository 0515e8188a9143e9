"""Labels as files hold them."""

import numpy as np
import pytest

from pocketvit.data.labels import find_class_names, number_labels
from pocketvit.errors import InputError


def row(i: int) -> str:
    return f"row {i}"


def test_names_are_numbered_alphabetically():
    values = np.array(["dog", "cat", "dog", "ape"])
    names = find_class_names(values)
    assert names == ("ape", "cat", "dog")
    assert number_labels(values, names, row).tolist() == [2, 1, 2, 0]


def test_given_order_of_names_counts():
    assert number_labels(np.array(["dog", "cat"]), ("dog", "cat"), row).tolist() == [0, 1]


def test_numbers_stay():
    values = np.array([1, 0, 2, 1], dtype=np.uint8)
    assert find_class_names(values) == ("0", "1", "2")
    numbers = number_labels(values, ("a", "b", "c"), row)
    assert numbers.tolist() == [1, 0, 2, 1] and numbers.dtype == np.int64


@pytest.mark.parametrize("values", [[0, 1, 3], [1, 2, 3], [0, 1, -1]])
def test_gaps_and_negative_numbers_are_refused(values):
    values = np.array(values)
    why = f"^row 2: label {values[2]}, but only 3 different labels occur; without class names they must be 0 to 2, each"
    with pytest.raises(InputError, match=why):
        number_labels(values, find_class_names(values), row, listed=False)
    with pytest.raises(InputError, match=f"^row 2: label {values[2]} is outside the 3 classes, which are a to c"):
        number_labels(values, ("a", "b", "c"), row)


def test_unknown_name_is_refused():
    with pytest.raises(InputError, match="^row 1: label 'cow' is outside the 2 classes, which are dog to cat"):
        number_labels(np.array(["dog", "cow"]), ("dog", "cat"), row)


def test_fractions_are_no_labels():
    with pytest.raises(InputError, match="^row 0: the label is float64"):
        number_labels(np.array([0.5, 1.0]), ("a", "b"), row)
