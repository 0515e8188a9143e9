"""A time budget: how many passes it allows, and that the run is the plain one. No test looks at a real clock."""

import json
from functools import partial

import pytest
import torch
from test_run import Heard, Notes, same_run
from worker_processes import decided_passes, together

from pocketvit.cli.train import parse_train
from pocketvit.config import load_config, override
from pocketvit.errors import InputError
from pocketvit.training import Stopped, budget, run, train
from pocketvit.training.distributed import ALONE
from pocketvit.training.step import TrainStep

STEP_S, SMALL_STEP_S, EVALUATION_S = 0.5, 0.25, 1.0  # by the clock of the tests


@pytest.fixture
def now(monkeypatch):
    """A clock that only steps and evaluations move, the first step most."""
    now, step, logits, cold = [0.0], TrainStep.__call__, budget.predict_logits, [7.0]

    def ticking_step(self):
        torch.rand(1)  # as code of the user's own may
        now[0] += (STEP_S if self.side is None else SMALL_STEP_S) + (cold.pop() if cold else 0)
        step(self)

    def ticking_logits(model, images, *stats):
        now[0] += EVALUATION_S * (len(images) / 30)
        return logits(model, images, *stats)

    monkeypatch.setattr(TrainStep, "__call__", ticking_step)
    monkeypatch.setattr(budget, "predict_logits", ticking_logits)
    monkeypatch.setattr(budget, "WARM_UP_IMAGES", 8)
    monkeypatch.setattr(run, "with_fitting_passes", partial(budget.with_fitting_passes, clock=lambda: now[0]))
    return now


@pytest.fixture
def tiny(small_in, tmp_path):
    """A run of six steps a pass and an evaluation every other pass; five passes without a budget."""

    def tiny(name, **values):
        base = override(small_in(tmp_path / name), {"model.width": 16, "model.depth": 1})
        return override(base, {"data.cache_dir": tmp_path / "cache"} | values)

    return tiny


def env(config):
    return json.loads((config.out / "env.json").read_text())


def test_the_run_is_the_one_with_so_many_passes_and_keeps_them(now, tiny):
    timed, plain, notes = (
        tiny("timed", **{"schedule.time_budget": "13s"}),
        tiny("plain", **{"schedule.passes": 3}),
        Notes(),
    )
    with pytest.raises(Stopped):
        train(timed, notes)  # 95 % of it, 12.35 s, are enough for 3 · 3 + 2 · 1 s, but not for 4 · 3 + 2 · 1 s
    assert "schedule.time_budget=13s: 3 passes of about 3 s, 1 s an evaluation" in notes.lines
    assert env(timed)["time_budget"] == {"budget": "13s", "passes": 3, "pass_s": 3.0, "evaluation_s": 1.0}

    assert parse_train(["--resume", str(timed.out)]) == override(timed, {"schedule.passes": 3})
    heard = Heard()
    result = train(override(timed, {"schedule.time_budget": "1h"}), heard)
    assert f"schedule.time_budget=1h: the run in {timed.out} keeps its 3 passes" in heard.lines
    assert env(timed)["time_budget"]["budget"] == "13s"

    wanted = train(plain)
    assert same_run(timed.out, plain.out) and result.config_hash == wanted.config_hash
    saved = load_config(timed.out / "config.yaml")
    assert override(saved, {"out": plain.out}) == load_config(plain.out / "config.yaml")
    assert "time_budget" not in env(plain)


def decided(config, **values):
    """The passes that a configuration gets, and what was measured."""
    config = override(config, values)
    splits = run.prepare(override(config, {"schedule.passes": 5}), ALONE, Heard()).splits
    state = torch.get_rng_state()
    fitted, measured = run.with_fitting_passes(config, splits, torch.device("cpu"), Heard())
    assert torch.equal(torch.get_rng_state(), state) and fitted.schedule.time_budget is None
    return fitted.schedule.passes, measured["time_budget"]["pass_s"]


def test_smaller_images_and_more_evaluations_count(now, tiny):
    config = tiny("timed", **{"schedule.time_budget": "0.5m", "schedule.warmup_passes": 1})
    assert decided(config) == (8, 3.0)  # 8 · 3 + 4 · 1 = 28 s of 28.5 s
    assert decided(config, **{"train.eval_every_passes": 1}) == (7, 3.0)
    assert decided(config, **{"train.eval_every_passes": 100}) == (9, 3.0)
    assert decided(config, **{"schedule.sides": (8,), "train.eval_every_passes": 100}) == (12, 2.25)


def test_a_warm_up_of_more_passes_than_the_placeholder_is_fine(now, tiny):
    config = tiny("timed", **{"schedule.time_budget": "1m", "schedule.warmup_passes": 12})  # of 5 it would be refused
    with pytest.raises(InputError, match=r"schedule.warmup_passes=12 must be less than schedule.passes=5"):
        override(config, {"schedule.passes": 5})
    assert run.prepare(config, ALONE, Heard()).config.schedule.passes == 16


def test_what_does_not_fit_is_refused(now, tiny):
    config = tiny("timed", **{"schedule.time_budget": "4.2s"})
    said = "schedule.time_budget=4.2s is too short: one pass takes 3 s here and its evaluation 1 s; give at least 5s"
    with pytest.raises(InputError, match=said):
        run.prepare(config, ALONE, Heard())
    assert not config.out.exists()
    said = "schedule.time_budget=5s gives schedule.passes=1: schedule.warmup_passes=1 must be less than .*--schedule.warmup-frac"
    with pytest.raises(InputError, match=said):
        run.prepare(override(config, {"schedule.time_budget": "5s"}), ALONE, Heard())


def test_the_first_process_decides_for_all(tiny, tmp_path):
    config = tiny("two", **{"schedule.time_budget": "10s"})
    assert together(2, tmp_path, decided_passes, config, (0.1, 5.0)) == [15, 15], "the others are slower"
