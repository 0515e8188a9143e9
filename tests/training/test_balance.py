"""Runs on uneven classes with `data.balance`."""

import numpy as np
import pytest
import torch
from test_run import Interrupt, Notes, same_run
from worker_processes import gradients, together

from pocketvit.config import override
from pocketvit.training import Stopped, train


@pytest.fixture
def uneven(small, synthetic_set, tmp_path):
    """A run on 32, 8 and 4 of the images of three classes."""
    with np.load(synthetic_set) as arrays:
        held = dict(arrays)
    kept = np.concatenate([np.flatnonzero(held["train_labels"] == k)[:n] for k, n in enumerate((32, 8, 4))])
    held |= {f"train_{part}": held[f"train_{part}"][kept] for part in ("images", "labels")}
    np.savez(tmp_path / "uneven.npz", **held)
    return override(small, {"data.source": str(tmp_path / "uneven.npz"), "batch_size": 11, "schedule.passes": 3})


def test_a_balanced_run_resumes_bit_for_bit(uneven, tmp_path):
    runs = [override(uneven, {"data.balance": "sampling", "out": tmp_path / name}) for name in ("straight", "stopped")]
    train(runs[0])
    with pytest.raises(Stopped):
        train(runs[1], Interrupt(6))
    train(runs[1])
    assert same_run(runs[0].out, runs[1].out)


@pytest.mark.parametrize("balance", ["loss", "sampling"])
def test_gradients_equal_those_of_one_process(uneven, tmp_path, balance):
    config = override(uneven, {"data.balance": balance})
    losses, rows = gradients(config, torch.float64)
    plain, _ = gradients(uneven, torch.float64)
    assert not torch.equal(losses, plain)
    for other_losses, other_rows in together(3, tmp_path, gradients, config, torch.float64):
        torch.testing.assert_close(other_losses, losses, rtol=1e-10, atol=0)
        assert ((other_rows - rows).norm(dim=1) / rows.norm(dim=1)).max() < 1e-10


def test_weights_let_a_run_learn_the_rare_classes(uneven, tmp_path):
    values = {"data.balance": "loss", "schedule.passes": 4, "optim.lr": 5e-3}
    result = train(override(uneven, values))
    plain = train(override(uneven, {**values, "data.balance": "none", "out": tmp_path / "plain"}))
    assert result.config_hash != plain.config_hash
    assert result.test_accuracy >= 0.9 > 0.8 > plain.test_accuracy, "the test images are even"


def test_even_classes_are_told_that_nothing_changes(small):
    notes = Notes()
    with pytest.raises(Stopped):
        train(override(small, {"data.balance": "loss"}), notes)
    assert "data.balance=loss has no effect: every class has 32 training images" in notes.lines
