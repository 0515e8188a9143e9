"""The learning-rate table at its corners; the formulas are tested in tests/reference, refusals with the configuration."""

import numpy as np
import pytest

from pocketvit.config import ScheduleConfig
from pocketvit.optim.schedule import lr_table

SHAPES = pytest.mark.parametrize("shape", ["cosine", "linear", "wsd"])


def table(shape: str, passes: int = 100, warmup_passes: int = 10, steps_per_pass: int = 1, **fields) -> np.ndarray:
    fields = {"warmup_lr": 1e-6, "final_lr": 1e-5, "decay_frac": 0.25} | fields
    config = ScheduleConfig(name=shape, passes=passes, warmup_passes=warmup_passes, **fields)
    return lr_table(config, peak=1e-3, steps_per_pass=steps_per_pass)


@SHAPES
@pytest.mark.parametrize("passes", [10, 100])
def test_a_fraction_stands_for_passes_of_warm_up(shape, passes):
    wanted = table(shape, passes, passes // 10, steps_per_pass=10)
    assert (table(shape, passes, 200, steps_per_pass=10, warmup_frac=0.1) == wanted).all()
    assert table(shape, 1, 200, steps_per_pass=10, warmup_frac=0.1).argmax() == 1


@SHAPES
def test_corners(shape):
    rates = table(shape)
    assert rates.dtype == np.float64 and rates.shape == (100,)
    assert rates[0] == 1e-6
    assert rates[9] == pytest.approx(1e-6 + 0.9 * (1e-3 - 1e-6))
    assert rates[10] == pytest.approx(1e-3)
    assert rates.max() == rates[10]
    assert (np.diff(rates[10:]) <= 0).all()
    assert rates[99] > 1e-5


@SHAPES
def test_steps_count_not_passes(shape):
    assert np.array_equal(table(shape, 20, 3, steps_per_pass=7), table(shape, 140, 21))


@SHAPES
def test_a_run_of_one_step(shape):
    assert table(shape, passes=1, warmup_passes=0) == pytest.approx([1e-3])


def test_wsd_may_decay_from_the_end_of_the_warm_up():
    assert table("wsd", decay_frac=0.9) == pytest.approx(table("linear"))


@pytest.mark.parametrize("steps_per_pass", [1, 3, 7, 195])
def test_a_wsd_that_the_configuration_takes_fits_into_every_run(steps_per_pass):
    """Rounding to whole steps never lets the fall begin before the warm-up ends."""
    for passes in range(1, 40):
        for warmup_passes in range(passes):
            frac = (passes - warmup_passes) / passes
            rates = table("wsd", passes, warmup_passes, steps_per_pass, decay_frac=frac)
            assert rates[warmup_passes * steps_per_pass] == pytest.approx(1e-3)
