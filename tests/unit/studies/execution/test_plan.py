"""What a study costs and can show, before its first run."""

import pytest

from pocketvit.errors import InputError
from pocketvit.studies import detectable_with, parse_study, plan_study, seeds_needed
from pocketvit.studies.definition.choose import find_study

ROWS = {"a": {"seeds": 5}, "b": {"model.depth": 2}, "c": {"model.depth": 3, "schedule.passes": 120}}


def study(**values):
    return parse_study({"recipe": "digits", "seeds": 3, "baseline": "a", "rows": ROWS} | values, "test")


def test_time_adds_up_over_cells_and_devices():
    plan = plan_study(study(), std=0.002, seconds_per_pass=2.0, startup_s=30.0, num_devices=2)
    passes = 5 * 60 + 3 * 60 + 3 * 120
    assert (plan.num_runs, plan.num_passes) == (11, passes)
    assert plan.hours == pytest.approx((passes * 2.0 + 11 * 30.0) / 2 / 3600)


def test_what_is_done_takes_no_time_and_a_run_is_on_one_device():
    cells = study().cells()
    some = plan_study(study(), std=0.002, seconds_per_pass=2.0, num_devices=8, device="core", left=cells[:2])
    assert (some.num_runs, some.num_left, some.num_passes) == (11, 2, 120)
    assert some.hours == pytest.approx(60 * 2.0 / 3600)
    assert "11 runs of 3 rows, 2 of them left to run, 120 passes, about 2" in some.lines()[0]
    assert some.lines()[0].endswith(" on 8 × core.")
    none = plan_study(study(), std=0.002, seconds_per_pass=2.0, left=[])
    assert none.hours == 0 and none.lines()[0] == "11 runs of 3 rows, none of them left to run."


def test_power_is_that_of_the_row_with_the_fewest_seeds():
    plan = plan_study(study(), std=0.002, seconds_per_pass=1.0, differences=[0.004])
    assert plan.detectable == detectable_with(3, 0.002, num_rows=3, num_comparisons=2)
    assert plan.needed == ((0.004, seeds_needed(0.004, 0.002, num_rows=3, num_comparisons=2)),)
    assert plan.lines()[-2].startswith("3 seeds per row detect a difference of 0.")


def test_the_built_in_study_can_see_a_difference_that_is_there():
    """By the spread of its rows, 1.43, 0.69 and 0.99 points, and what a quarter of the width cost, 8.89."""
    digits = find_study("digits")
    plan = plan_study(digits, std=0.0143, seconds_per_pass=0.4)
    assert plan.detectable < 0.0889 / 2 and digits.compare["narrow"] == "one-cls"
    assert plan.num_runs * 30 == plan.num_passes <= 360, "minutes on two cores"


def test_one_seed_finds_nothing_and_one_row_has_nothing_to_find():
    once = plan_study(study(seeds=1), std=0.002, seconds_per_pass=1.0)
    assert any("One seed per row detects nothing" in line for line in once.lines())
    wide = plan_study(study(seeds=2), std=0.3, seconds_per_pass=1.0, differences=[0.5])
    assert (
        wide.detectable > 1 and "2 seeds per row detect nothing: the difference would have to exceed" in wide.lines()[2]
    )
    alone = plan_study(study(rows={"a": {}}), std=0.002, seconds_per_pass=1.0)
    assert alone.detectable is None and len(alone.lines()) == 1


def test_one_of_a_kind_is_singular_and_a_correction_is_said_where_there_is_one():
    line = plan_study(study(seeds=1, rows={"a": {}}), std=0.002, seconds_per_pass=1.0).lines()[0]
    assert line.startswith("1 run of 1 row, 60 passes, ") and line.endswith(" on 1 device.")
    compared, alone = (plan_study(s, std=0.002, seconds_per_pass=1.0) for s in (study(), study(baseline=None)))
    assert compared.lines()[1].endswith(" power, corrected for 2 comparisons:")
    assert alone.lines()[1].endswith(" power:") and alone.num_comparisons == 0


@pytest.mark.parametrize(
    ("values", "words"),
    [({"std": 0.0}, "std=0.0"), ({"num_devices": 0}, "num_devices=0"), ({"differences": [1e-6]}, "difference=1e-06")],
)
def test_impossible_numbers_are_named(values, words):
    with pytest.raises(InputError, match=words):
        plan_study(study(), **({"std": 0.002, "seconds_per_pass": 1.0} | values))
