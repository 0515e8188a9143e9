"""Early stopping: when it ends a run, what it keeps, and that a resumed run does the same."""

import shutil

import pytest
import torch
from test_run import Heard, Interrupt, metrics, same_run
from worker_processes import together

from pocketvit.cli.train import parse_train
from pocketvit.config import TrainConfig, override
from pocketvit.errors import InputError
from pocketvit.inference.logits import accuracy
from pocketvit.inference.trained_model import load_model
from pocketvit.runs.result import RunResult
from pocketvit.training import Stopped, train
from pocketvit.training.distributed import ALONE
from pocketvit.training.patience import Patience
from pocketvit.training.run import prepare

VALUES = {
    "model.width": 16,
    "model.depth": 1,
    "optim.lr": 0.3,  # so high that the accuracy soon gets worse
    "seed": 3,
    "schedule.passes": 9,
    "schedule.warmup_passes": 0,
    "data.val_frac": 0.25,
    "train.eval_every_passes": 1,
    "train.patience": 2,
}


@pytest.fixture(scope="module")
def patient(small_in, tmp_path_factory):
    """A finished run that ended early, and what it said."""
    config, heard = override(small_in(tmp_path_factory.mktemp("patient")), VALUES), Heard()
    train(config, heard)
    return config, heard.lines


def test_a_run_ends_early_and_keeps_the_best_weights(patient):
    config, said = patient
    result, lines = RunResult.read(config.out / "result.json"), metrics(config.out)
    accuracies = [line["val_accuracy"] for line in lines]
    best = accuracies.index(max(accuracies)) + 1
    assert len(lines) == best + 2 < 9, "two evaluations without a better one"
    assert result.best_pass == best and result.val_accuracy == max(accuracies) > accuracies[-1]
    assert result.images_seen == len(lines) * 4 * 16
    assert any(
        line.startswith(f"train.patience ends the run after pass {best + 2}; it keeps the best") for line in said
    )

    held_out = prepare(config, ALONE, Heard()).splits.val
    assert accuracy(load_model(config.out).logits(held_out.images), held_out.labels) == result.val_accuracy


def test_a_resumed_run_ends_alike(patient, tmp_path):
    config, _ = patient
    again = override(config, {"out": tmp_path / "again", "train.checkpoint_every_passes": 1})
    lines = len(metrics(config.out))
    with pytest.raises(Stopped):
        train(again, Interrupt(4 * (lines - 1) + 1))  # after the best weights
    train(again)
    assert same_run(config.out, again.out)
    (again.out / "result.json").unlink()  # as if it had been killed before its end
    (again.out / "model.safetensors").unlink()
    train(again)
    assert same_run(config.out, again.out)
    with pytest.raises(InputError, match="train.patience=2 decides when this run ends: no more passes"):
        parse_train(["--resume", str(again.out), "--schedule.passes", "20"])
    shutil.rmtree(again.out)


def test_processes_agree(patient, tmp_path):
    config, _ = patient
    two = override(config, {"out": tmp_path / "two"})
    together(2, tmp_path, train, two)
    result = RunResult.read(two.out / "result.json")
    assert result.best_pass and len(metrics(two.out)) - result.best_pass in (2, 9 - result.best_pass)


def test_it_counts_evaluations_and_needs_held_out_images(small):
    model = torch.nn.Linear(1, 1)
    patience = Patience(TrainConfig(patience=2, eval_every_passes=5))
    for pass_index, measured, over in (
        (4, None, False),
        (5, 0.0, False),
        (10, 0.2, False),
        (15, 0.2, False),
        (20, 0.1, True),
    ):
        patience.look(pass_index, measured, lambda: model)
        assert patience.is_over(pass_index) == over
    assert patience.pass_index == 10 and patience.take(patience.state() | {"a": model.bias}) == {"a": model.bias}
    with pytest.raises(
        InputError, match="train.patience=3 looks at held-out images, and there are none; set data.val_frac"
    ):
        override(small, {"train.patience": 3})
