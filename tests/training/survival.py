"""What tests of interrupted runs share: when two runs are the same, and how to wait for a moment of one."""

import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from worker_processes import start

from pocketvit.config import RunConfig
from pocketvit.training import train
from pocketvit.training.checkpoint import list_checkpoints

CLOCK = {"train_s", "images_per_s"}


def metrics(folder: Path) -> list[dict]:
    """The lines of metrics.jsonl without the clock's fields."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in CLOCK} for line in lines]


def assert_same_run(a: Path, b: Path) -> None:
    """Two finished runs are bit-identical but for the clock."""
    left, right = (load_file(folder / "model.safetensors") for folder in (a, b))
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert metrics(a) == metrics(b)


def count_lines(folder: Path) -> int:
    """Passes that a run has logged so far."""
    path = folder / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def wait_for_lines(folder: Path, count: int, running: Callable[[], bool], limit_s: float = 300) -> None:
    """Wait until a run has finished some passes."""
    until = time.monotonic() + limit_s
    while count_lines(folder) < count:
        assert running() and time.monotonic() < until, f"the run got to pass {count_lines(folder)}, not to {count}"
        time.sleep(0.01)


def newest_step(folder: Path) -> int:
    """The step of a run's newest checkpoint; 0 where there is none."""
    checkpoints = list_checkpoints(folder / "checkpoint")
    return int(checkpoints[0].name.split(".")[0].removeprefix("step-")) if checkpoints else 0


def train_killed(config: RunConfig, kills: int, moments: random.Random) -> list[int]:
    """Train to the end in processes that are killed, until the last.

    Every fifth is killed while it begins, the others after one to six passes. Passes are counted, because by the clock
    all kills would fall into the beginning on a machine that is slow or busy.

    Returns:
        The step of the newest checkpoint after each kill.
    """
    reached = []
    for kill in range(kills):
        process = start(train, config)
        if kill % 5:
            wait_for_lines(config.out, count_lines(config.out) + moments.randint(1, 6), process.is_alive)
            time.sleep(moments.uniform(0, 0.05))
        else:
            time.sleep(moments.uniform(0, 0.5))
        assert process.is_alive(), "the run ended before it was killed often enough; give it more passes"
        process.kill()
        process.join()
        reached.append(newest_step(config.out))
    train_in_a_process(config)
    return reached


def train_in_a_process(config: RunConfig) -> None:
    """Train to the end in a process of its own."""
    process = start(train, config)
    process.join()
    assert process.exitcode == 0
