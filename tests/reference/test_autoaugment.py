"""AutoAugment's tables: the policies and levels against torchvision's, the draws against their probabilities."""

import itertools
from collections import Counter, defaultdict

import numpy as np
import pytest
from scipy.stats import chisquare
from torchvision.transforms import AutoAugment, AutoAugmentPolicy

from pocketvit.augment.autoaugment import NUM_DRAWS, OPS, POLICIES, Step, arguments, resolve
from pocketvit.randomness import Stream, uniform

TORCHVISION_NAMES = {op.replace("_", ""): op for op in OPS}
"""torchvision writes ShearX where we write shear_x."""


def draws(count: int, seed: int = 0) -> np.ndarray:
    return uniform(seed, Stream.IMAGE, 0, count, NUM_DRAWS)


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_equal_torchvisions(policy: str) -> None:
    theirs = AutoAugment(AutoAugmentPolicy(policy)).policies
    expected = tuple(tuple((TORCHVISION_NAMES[op.lower()], *rest) for op, *rest in pair) for pair in theirs)
    assert len(expected) == 25
    assert POLICIES[policy] == expected


def test_levels_equal_torchvisions_where_the_reference_agrees() -> None:
    """The reference differs in solarize (from 256, not 255), and rotates only one way."""
    space = AutoAugment()._augmentation_space(10, (24, 32))
    for name, (magnitudes, signed) in space.items():
        op = TORCHVISION_NAMES[name.lower()]
        minus, plus = arguments(op, (24, 32))
        if op == "solarize":
            np.testing.assert_allclose(plus, 256 * (1 - np.arange(10) / 9), atol=1e-9)
        elif op in ("color", "contrast", "brightness", "sharpness"):
            np.testing.assert_allclose(plus - 1, magnitudes, atol=1e-6)
            np.testing.assert_allclose(minus - 1, -magnitudes.numpy(), atol=1e-6)
        else:
            np.testing.assert_allclose(plus, np.broadcast_to(magnitudes, 10), rtol=1e-6)
            np.testing.assert_allclose(minus, -plus if signed and op != "rotate" else plus)


def outcome_probs(policy: str) -> dict[tuple[float, ...], float]:
    """The chance of each outcome (op 1, op 2, value 1, value 2), found by walking through every branch."""

    def branches(step: Step) -> list[tuple[float, int, float]]:
        level = arguments(step.op, (32, 32))[:, step.level or 0]
        return [(1 - step.prob, 0, 0.0), *((step.prob / 2, OPS.index(step.op), value) for value in level)]

    probs: dict[tuple[float, ...], float] = defaultdict(float)
    for first, second in POLICIES[policy]:
        for (p, op1, value1), (q, op2, value2) in itertools.product(branches(first), branches(second)):
            probs[op1, op2, float(value1), float(value2)] += p * q / 25
    return {outcome: prob for outcome, prob in probs.items() if prob > 0}


@pytest.mark.parametrize("policy", POLICIES)
def test_outcomes_come_as_often_as_they_should(policy: str) -> None:
    """Sub-policies, gates and signs at once: the joint frequencies of all outcomes in 100,000 draws."""
    table = resolve(policy, draws(100_000), image_size=(32, 32))
    observed = Counter(zip(*table.op.T.tolist(), *table.value.T.tolist(), strict=True))
    probs = outcome_probs(policy)
    assert set(observed) == set(probs)
    expected = 100_000 * np.array(list(probs.values()))
    assert chisquare([observed[outcome] for outcome in probs], expected).pvalue > 1e-4


def test_each_column_of_draws_decides_one_thing() -> None:
    top = np.float32(1 - 2**-24)  # the largest number drawn
    rows = np.array(
        [
            [0, 0, 0, 0, 0],  # first sub-policy, both stages happen
            [top, 0, 0, 0, top],  # last sub-policy: translate_y by a negative value; autocontrast
            [0.05, 0, top, 0, 0],  # second: rotate, which has no sign; no translation
            [0.05, 0.71, 0.29, 0, 0.5],  # the same sub-policy the other way round; from a half the sign is positive
        ],
        dtype=np.float32,
    )
    table = resolve("cifar10", rows, image_size=(64, 32))
    names = [[OPS[code] for code in codes] for codes in table.op]
    assert names == [
        ["invert", "contrast"],
        ["translate_y", "autocontrast"],
        ["rotate", "identity"],
        ["identity", "translate_x"],
    ]
    expected = [[0, 1 - 0.6], [-64 * 150 / 331, 0], [30 * 2 / 9, 0], [0, 32 * 150 / 331]]
    np.testing.assert_allclose(table.value, expected)


def test_gates_of_probability_zero_and_one() -> None:
    """Of the CIFAR-10 policy, sub-policy 14 ends in an invert that never happens; ImageNet's 7 in a sure equalize."""
    u = draws(10_000)
    u[:, 0] = 14.5 / 25
    assert not (resolve("cifar10", u, image_size=(32, 32)).op[:, 1]).any()
    u[:, 0] = 7.5 / 25
    assert (resolve("imagenet", u, image_size=(32, 32)).op[:, 1] == OPS.index("equalize")).all()


def test_skipped_operations_become_identity_and_the_rest_stays() -> None:
    u = draws(5_000)
    full = resolve("cifar10", u, image_size=(32, 32))
    table = resolve("cifar10", u, image_size=(32, 32), skip=("rotate", "color"))
    skipped = np.isin(full.op, [OPS.index("rotate"), OPS.index("color")])
    assert skipped.any()
    np.testing.assert_array_equal(table.op, np.where(skipped, 0, full.op))
    np.testing.assert_array_equal(table.value, np.where(skipped, 0, full.value))


def test_a_row_does_not_depend_on_the_others() -> None:
    u = draws(1_000)
    table = resolve("svhn", u, image_size=(32, 32))
    assert (table.op.dtype, table.value.dtype) == (np.int8, np.float64)
    rows = np.array([999, 3, 500])
    some = resolve("svhn", u[rows], image_size=(32, 32))
    np.testing.assert_array_equal(table[rows].op, some.op)
    np.testing.assert_array_equal(table[rows].value, some.value)
