"""A run on a GPU outlives kill -9, bit for bit with the deterministic flag."""

import random

import pytest
import torch
from survival import assert_same_run, train_in_a_process, train_killed

from pocketvit.config import override
from pocketvit.errors import InputError
from pocketvit.training import train

pytestmark = pytest.mark.gpu

KILLS = 4


def test_a_killed_run_is_the_run_that_was_not(small, tmp_path):
    values = {"schedule.passes": 60, "optim.ema_decay": 0.9}
    config = override(small, values | {"train.eval_every_passes": 10, "train.checkpoint_every_passes": 2})
    straight = override(config, {"out": tmp_path / "straight"})
    train_in_a_process(straight)
    train_killed(config, KILLS, random.Random(0))
    assert_same_run(config.out, straight.out)


def test_determinism_asked_for_too_late_is_refused(small, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    torch.cuda.init()
    with pytest.raises(InputError, match="needs CUBLAS_WORKSPACE_CONFIG=:4096:8 before CUDA starts"):
        train(small)
    assert not torch.are_deterministic_algorithms_enabled()
