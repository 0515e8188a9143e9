"""What the learning-rate range test says about curves with a known answer."""

import numpy as np
import pytest

from pocketvit.doctor.lr_range import RangeTest, range_factors
from pocketvit.doctor.trials import lr_finding


def curve(least=1e-2, lost=1e-1, steps=120, noise=0.02, end=np.inf) -> RangeTest:
    """From 2.3 the loss falls to 2 at `least`, is back at 2.3 at `lost`, and goes on rising."""
    rates = 1e-2 * range_factors(steps)
    x = np.log10(rates)
    ups = np.interp(x, np.log10([1e-5, least, lost, 10 * lost]), [2.3, 2.0, 2.3, 5])
    losses = ups + np.random.default_rng(0).normal(0, noise, steps)
    return RangeTest(rates, np.where(rates > end, np.nan, losses))


def test_the_range_is_a_factor_a_step_around_the_configured_rate():
    factors = range_factors(51)
    np.testing.assert_allclose(factors[1:] / factors[:-1], 10**0.1)
    assert factors[30] == pytest.approx(1)


def test_the_least_loss_and_its_end_are_found():
    test = curve()
    assert test.first == pytest.approx(2.3, abs=0.02)
    assert test.lowest == pytest.approx(1e-2, rel=0.5) and test.limit == pytest.approx(1e-1, rel=0.5)
    diverged = curve(end=3e-2)
    assert diverged.limit == pytest.approx(3e-2, rel=0.2) and diverged.lowest == pytest.approx(1e-2, rel=0.5)
    assert np.isfinite(diverged.smoothed).all()


@pytest.mark.parametrize(
    ("lr", "state", "words"),
    [
        (1e-2, "ok", ""),
        (1e-3, "ok", ""),
        (5e-3, "ok", ""),
        (0.04, "warn", "may be too high"),
        (0.3, "FAIL", "too high, and training would probably diverge"),
        (1e-4, "warn", "may be low"),
    ],
)
def test_a_rate_is_judged_by_where_it_lies(lr, state, words):
    finding = lr_finding(lr, curve())
    assert finding.state == state and words in finding.advice
    assert bool(finding.advice) == (state != "ok")


def test_a_loss_that_never_fell_says_nothing():
    rates, rng = 1e-3 * range_factors(60), np.random.default_rng(1)
    flat = RangeTest(rates, 2.3 + rng.normal(0, 0.05, 60))
    assert flat.lowest is None
    finding = lr_finding(1.0, flat)
    assert finding.state == "warn" and "nothing is said" in finding.found
    assert RangeTest(rates[:3], np.array([2.3, np.nan, np.nan])).lowest is None


def wild(again: float) -> RangeTest:
    """From 2.3 the loss falls to 1 at 1e-2, then swings without being as high as at first, and falls to `again` at 0.7."""
    rates = 1e-2 * range_factors(101)
    x = np.log10(rates)
    losses = np.interp(x, [-5, -2, -1.5, -0.4, -0.15, 0], [2.3, 1.0, 1.8, 1.8, again, 1.8])
    return RangeTest(rates, losses + 0.3 * np.where(x > -1.5, np.cos(np.arange(101) * np.pi), 0))


def test_a_rate_far_above_the_least_loss_fails_though_not_all_is_lost():
    test = wild(again=1.5)
    assert test.limit is None and test.lowest == pytest.approx(1e-2, rel=0.5)
    assert [lr_finding(lr, test).state for lr in (1e-2, 0.03, 0.1, 1.0)] == ["ok", "warn", "FAIL", "FAIL"]


def test_a_loss_that_falls_again_at_a_high_rate_does_not_hide_the_first_least_one():
    test = wild(again=0.5)
    assert test.rates[test.smoothed.argmin()] > 0.5 and test.lowest == pytest.approx(1e-2, rel=0.5)
