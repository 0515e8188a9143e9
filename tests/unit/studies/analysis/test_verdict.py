"""What the numbers of a study say in words, and what cannot be told."""

from math import sqrt

import pytest

from pocketvit.errors import InputError
from pocketvit.studies import Comparison, compare, effect, p_value, points, summarise, verdict
from pocketvit.studies.analysis.stats import rounding_variance

DETECTED = "one of ± 0.20 points would have been detected (80 % power)"


def comparison(**values) -> Comparison:
    fields = {
        "row": "a", "reference": "b", "paired": True, "num_seeds": 3, "difference": 0.0042, "stderr": 0.0005, "df": 9.0,
        "interval": (0.0027, 0.0057), "p": 0.001, "p_holm": 0.01, "num_comparisons": 10, "detectable": 0.002,
    }  # fmt: skip
    return Comparison(**(fields | values))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "helps (+0.42 ± 0.15 points, p = 0.01)"),
        (
            {"difference": -0.0042, "interval": (-0.0057, -0.0027), "p_holm": 1e-5},
            "hurts (−0.42 ± 0.15 points, p < 0.001)",
        ),
        ({"paired": False}, "helps (+0.42 ± 0.15 points, p = 0.01, unpaired)"),
        ({"p": 0.4, "p_holm": 1.0}, f"no significant difference; {DETECTED}"),
        ({"p": 0.4, "p_holm": 1.0, "paired": False}, f"no significant difference (unpaired); {DETECTED}"),
        (
            {"p": 0.013, "p_holm": 0.13},
            f"no significant difference (p = 0.013 before correction for 10 comparisons); {DETECTED}",
        ),
        (
            {"interval": (-0.5, 0.5084), "p": 0.4, "p_holm": 1.0, "detectable": 1.66},
            "cannot be told from n = 3 (+0.42 ± 50.42 points): too few runs",
        ),
        ({"detectable": 1.66}, "helps (+0.42 ± 0.15 points, p = 0.01)"),
    ],
)
def test_verdicts(values, words):
    assert verdict(comparison(**values)) == words


def test_one_seed_a_row_tells_nothing_and_says_so():
    found = compare({"a": {0: 0.93}, "b": {0: 0.94}}, {"b": "a"})["b"]
    assert (found.stderr, found.interval, found.p, found.p_holm, found.detectable) == (None,) * 5
    assert verdict(found) == "cannot be told from n = 1 (+1.00 points): unknown spread over seeds"


def test_one_seed_is_enough_where_other_rows_show_the_spread():
    rows = {"a": {0: 0.930, 1: 0.931}, "other": {0: 0.920, 1: 0.9215}, "b": {0: 0.9}}
    found = compare(rows, {"b": "a"})["b"]
    assert found.paired and found.num_seeds == 1 and 1 <= found.df < 2
    assert verdict(found).startswith("hurts") and verdict(found).endswith(", a single run)"), "and the reader is told"


def test_five_baselines_against_single_runs_go_unpaired():
    """Pairing leaves nothing to estimate the noise from there, but the baseline shows how runs scatter."""
    rows = {"a": {0: 0.930, 1: 0.931, 2: 0.929, 3: 0.9305, 4: 0.9315}, "b": {0: 0.95}, "c": {1: 0.931}}
    found = compare(rows, {"b": "a", "c": "a"})
    assert not found["b"].paired and found["b"].df == pytest.approx(4)
    assert verdict(found["b"]).startswith("helps") and verdict(found["b"]).endswith("unpaired, a single run)")
    assert verdict(found["c"]).startswith("no significant difference (unpaired, a single run)")
    assert compare({"b": rows["a"], "a": {9: 0.95}}, {"b": "a"})["b"].num_seeds == 1, "of the row with fewer"


def test_equal_runs_on_every_seed_are_no_proof():
    rows = {"a": {0: 0.93, 1: 0.94}, "b": {0: 0.95, 1: 0.96}}
    assert verdict(compare(rows, {"b": "a"})["b"]).startswith("cannot be told from n = 2 (+2.00 points)")


def test_rows_without_results_wait():
    found = compare({"a": {0: 0.93, 1: 0.94}, "b": {}}, {"b": "a", "never": "a"})
    assert [verdict(c) for c in found.values()] == ["no result yet"] * 2
    assert compare({}, {}) == {}
    assert summarise({}).mean is None and summarise({0: 0.93}).std is None


def test_the_correction_counts_what_is_not_measured_yet():
    """A half-done study must not take for real what it will not at its end."""
    rows = {"a": {0: 0.93, 1: 0.94}, "b": {0: 0.95, 1: 0.965}, "later": {}}
    found = compare(rows, {"b": "a", "later": "a"})
    assert found["b"].p_holm == 2 * found["b"].p and found["b"].num_comparisons == 2
    assert found["later"].p_holm is None and found["later"].num_comparisons == 2


def test_runs_that_differ_by_the_same_on_every_seed_scatter_by_rounding():
    """Of 100 test images: what is alike is alike to half an image, and the variance of that is known."""
    rows = {"a": {0: 0.93, 1: 0.94}, "b": {0: 0.98, 1: 0.99}}
    least = rounding_variance(rows)
    assert least == pytest.approx(0.01**2 / 12)
    found = compare(rows, {"b": "a"}, least=least)["b"]
    assert found.stderr == pytest.approx(sqrt(2 * least / 2)) and found.df == pytest.approx(1) and found.p < 0.05
    assert rounding_variance({"a": {0: 0.9, 1: 0.9}}) == 0.0, "one value does not show how much an image is"


def test_a_number_that_is_none_is_refused():
    with pytest.raises(InputError, match="row 'b' with seed 1 is nan"):
        compare({"a": {0: 0.93}, "b": {1: float("nan")}}, {"b": "a"})


def test_bootstrap_begins_at_eight_seeds():
    rows = {"a": {s: 0.93 + 0.001 * (s % 3) for s in range(8)}, "b": {s: 0.94 + 0.001 * (s % 5) for s in range(8)}}
    assert compare(rows, {"b": "a"})["b"].bootstrap is not None
    del rows["b"][7]
    assert compare(rows, {"b": "a"})["b"].bootstrap is None


def test_what_would_have_been_seen_shrinks_as_other_comparisons_are_settled():
    """Holm's procedure asks less of a comparison once others were found: here 0.05 in place of 0.025."""

    def detectable(gain: float) -> float:
        rows = {"a": {0: 0.930, 1: 0.932}, "b": {0: 0.931, 1: 0.9325}, "c": {0: 0.93 + gain, 1: 0.9321 + gain}}
        return compare(rows, {"b": "a", "c": "a"})["b"].detectable

    assert detectable(0.1) < 0.8 * detectable(0.0)


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (0.0042, "+0.42"),
        (-0.0305, "−3.05"),
        (0.0, "0.00"),
        (0.00004, "0.00"),
        (-0.00004, "0.00"),
        (0.12345, "+12.35"),
        (-4e-17, "0.00"),
    ],  # fmt: skip
)
def test_points(fraction, text):
    assert points(fraction, signed=True) == text


def test_a_size_is_never_rounded_to_none():
    assert points(0.00004) == "0.004" and points(0.0) == "0.00"


def test_effect_without_an_interval_is_the_difference_alone():
    assert effect(comparison(interval=None)) == "+0.42 points"
    assert effect(comparison(difference=None)) == ""


@pytest.mark.parametrize(
    ("p", "text"), [(0.34, "p = 0.34"), (0.0123, "p = 0.012"), (0.0004, "p < 0.001"), (1.0, "p = 1.00")]
)
def test_p_values(p, text):
    assert p_value(p) == text
