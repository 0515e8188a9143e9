"""The learning-rate table at its corners, and what it refuses; the formulas are tested in tests/reference."""

import numpy as np
import pytest

from pocketvit.errors import InputError
from pocketvit.optim.schedule import SCHEDULES, lr_table

GIVEN = {"peak": 1e-3, "steps": 100, "warmup_steps": 10, "warmup_lr": 1e-6, "final_lr": 1e-5, "decay_frac": 0.25}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_corners(schedule):
    table = lr_table(schedule, **GIVEN)
    assert table.dtype == np.float64 and table.shape == (100,)
    assert table[0] == 1e-6
    assert table[9] == pytest.approx(1e-6 + 0.9 * (1e-3 - 1e-6))
    assert table[10] == pytest.approx(1e-3)
    assert table.max() == table[10]
    assert (np.diff(table[10:]) <= 0).all()
    assert table[99] > 1e-5


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_warm_up_step_0_has_the_peak(schedule):
    assert lr_table(schedule, **GIVEN | {"warmup_steps": 0})[0] == pytest.approx(1e-3)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_run_of_one_step(schedule):
    assert lr_table(schedule, **GIVEN | {"steps": 1, "warmup_steps": 0}) == pytest.approx([1e-3])


def test_wsd_holds_the_peak_until_its_decay():
    table = lr_table("wsd", **GIVEN)
    assert table[10:76] == pytest.approx(1e-3)
    assert table[76] < 1e-3
    assert table[99] == pytest.approx(1e-5 + (1e-3 - 1e-5) / 25)


def test_wsd_may_decay_from_the_end_of_the_warm_up():
    table = lr_table("wsd", **GIVEN | {"decay_frac": 0.9})
    assert table == pytest.approx(lr_table("linear", **GIVEN))


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("schedule.name", {"schedule": "cosin"}),
        ("optim.lr", {"peak": 0.0}),
        ("optim.lr", {"peak": float("nan")}),
        ("schedule.passes", {"steps": 0}),
        ("schedule.warmup_passes", {"warmup_steps": 100}),
        ("schedule.warmup_passes", {"warmup_steps": -1}),
        ("schedule.warmup_lr", {"warmup_lr": -1e-6}),
        ("schedule.final_lr", {"final_lr": -1e-6}),
        ("schedule.decay_frac", {"decay_frac": 0.0}),
        ("schedule.decay_frac", {"decay_frac": 1.5}),
        ("schedule.decay_frac", {"decay_frac": 0.95}),
    ],
)
def test_wrong_values_are_refused_by_their_field(field, change):
    given = {"schedule": "wsd"} | GIVEN | change
    with pytest.raises(InputError, match=f"^{field}") as caught:
        lr_table(given.pop("schedule"), **given)
    assert "\n" not in str(caught.value)
