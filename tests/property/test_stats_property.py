"""What must hold for the statistics of any study."""

from math import isclose

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketvit.studies import compare, pooled_spread, verdict
from pocketvit.studies.analysis.stats import holm
from pocketvit.studies.analysis.verdict import untold

STEP = 1e-4
"""One image of CIFAR-10's test set: accuracies are multiples of it."""

row = st.dictionaries(st.integers(0, 5), st.integers(8000, 9800).map(lambda n: n * STEP), min_size=1, max_size=4)
studies = st.lists(row, min_size=2, max_size=5).map(lambda rows: {f"r{i}": values for i, values in enumerate(rows)})


def against_first(study):
    return compare(study, {name: "r0" for name in study if name != "r0"})


def same(a, b, scale=1.0) -> None:
    """The comparisons `b` are `a` with every accuracy times `scale`, up to rounding."""
    for x, y in zip(a.values(), b.values(), strict=True):
        assert (x.paired, x.num_seeds, x.stderr is None) == (y.paired, y.num_seeds, y.stderr is None)
        assert isclose(x.difference * scale, y.difference, abs_tol=1e-9)
        if x.stderr is not None:
            assert x.stderr * scale == pytest.approx(y.stderr, rel=1e-5)
            assert [end * scale for end in x.interval] == pytest.approx(y.interval, rel=1e-5, abs=1e-9)
            assert (x.p, x.p_holm) == (pytest.approx(y.p, abs=1e-5), pytest.approx(y.p_holm, abs=1e-4))
            assert x.detectable * scale == pytest.approx(y.detectable, rel=1e-4)


@settings(deadline=None, max_examples=60)
@given(studies, st.integers(-5000, 5000))
def test_a_shift_of_all_accuracies_changes_nothing(study, images):
    shifted = {name: {s: v + images * STEP for s, v in values.items()} for name, values in study.items()}
    same(against_first(study), against_first(shifted))


@settings(deadline=None, max_examples=60)
@given(studies, st.sampled_from([0.01, 0.5, 100.0]))
def test_differences_scale_with_the_accuracies_and_p_does_not(study, scale):
    scaled = {name: {s: v * scale for s, v in values.items()} for name, values in study.items()}
    same(against_first(study), against_first(scaled), scale)


@settings(deadline=None, max_examples=60)
@given(studies, st.permutations(range(6)))
def test_neither_the_order_nor_the_numbers_of_seeds_matter(study, names):
    reversed_ = {name: dict(reversed(values.items())) for name, values in study.items()}
    same(against_first(study), against_first(reversed_))
    renamed = {name: {names[s]: v for s, v in values.items()} for name, values in study.items()}
    same(against_first(study), against_first(renamed))


@settings(deadline=None, max_examples=60)
@given(studies, st.lists(st.integers(-100, 100), min_size=6, max_size=6))
def test_what_a_seed_does_to_every_row_drops_out_of_pairs(study, effects):
    """Where both rows have the same seeds; others contain the seed."""
    moved = {name: {s: v + effects[s] * STEP for s, v in values.items()} for name, values in study.items()}
    before, after = against_first(study), against_first(moved)
    paired = [name for name, c in before.items() if c.stderr is not None and study[name].keys() == study["r0"].keys()]
    paired = [name for name in paired if before[name].paired]
    for name in paired:
        assert before[name].difference == pytest.approx(after[name].difference, abs=1e-9)
        assert before[name].stderr == pytest.approx(after[name].stderr, rel=1e-5)


@settings(deadline=None, max_examples=60)
@given(studies)
def test_turning_a_comparison_round_turns_its_sign_only(study):
    one = compare(study, {"r1": "r0"})["r1"]
    other = compare(study, {"r0": "r1"})["r0"]
    assert one.difference == pytest.approx(-other.difference, abs=1e-12)
    assert (one.stderr, one.df, one.paired) == (pytest.approx(other.stderr), other.df, other.paired)


@settings(deadline=None, max_examples=60)
@given(studies)
def test_every_study_gets_verdicts_that_agree_with_its_numbers(study):
    spread = pooled_spread(study)
    assert 0 <= spread.total_df <= sum(map(len, study.values())) - len(study) + 1e-9
    for comparison in against_first(study).values():
        words = verdict(comparison)
        assert untold(comparison) == words.startswith("cannot be told")
        if comparison.stderr is None:
            assert untold(comparison) and comparison.p is None and comparison.interval is None
            continue
        low, high = comparison.interval
        assert low < comparison.difference < high
        assert (comparison.p < 0.05) == (not low <= 0 <= high) or isclose(comparison.p, 0.05, abs_tol=1e-6)
        found = "helps" if comparison.difference > 0 else "hurts"
        unseen = "no significant difference" if comparison.detectable <= 1 else "cannot be told"
        assert words.startswith(found if comparison.p_holm <= 0.05 else unseen)


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_corrects_upwards_and_keeps_the_order(p):
    adjusted = holm(p)
    assert all(raw <= corrected <= 1 for raw, corrected in zip(p, adjusted, strict=True))
    in_order = [corrected for _, corrected in sorted(zip(p, adjusted, strict=True))]
    assert in_order == sorted(in_order)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.data())
def test_a_further_comparison_never_makes_the_others_surer(p, data):
    more = holm([*p, data.draw(st.floats(0, 1))])
    assert all(before <= after for before, after in zip(holm(p), more, strict=False))
