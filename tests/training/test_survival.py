"""A run outlives what happens to it: kills, signals, bad disks."""

import dataclasses
import errno
import os
import random
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from survival import assert_same_run, metrics, train_in_a_process, train_killed, wait_for_lines

from pocketvit import files
from pocketvit.cli import parse_train
from pocketvit.config import RunConfig, override, save_config
from pocketvit.errors import InputError
from pocketvit.training import Stopped, checkpoint, train
from pocketvit.training.checkpoint import list_checkpoints, load_checkpoint
from pocketvit.training.progress import SilentReporter


class AfterPass(SilentReporter):
    """Calls a function after one pass, and keeps what the run says."""

    def __init__(self, number: int, function=lambda: None) -> None:
        self.number, self.function, self.notes = number, function, []

    def note(self, line):
        self.notes.append(line)

    def passed(self, line):
        if line["pass"] == self.number:
            self.function()


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


# ---------------------------------------------------------------- kill -9


@pytest.mark.long
@pytest.mark.parametrize("kills", [10, pytest.param(50, marks=pytest.mark.nightly)])
def test_a_run_killed_many_times_is_the_run_that_was_not(small, tmp_path, kills):
    more = {"schedule.passes": 6 * kills + 20, "train.checkpoint_every_passes": 1, "optim.ema_decay": 0.9}
    config = override(small, more)
    straight = override(config, {"out": tmp_path / "straight"})
    train_in_a_process(straight)
    reached = train_killed(config, kills, random.Random(0))
    assert len(reached) == kills and reached == sorted(reached), "a kill never loses a checkpoint"
    assert len(set(reached)) > kills // 2, "the kills fell all over the run"
    assert_same_run(config.out, straight.out)
    assert len(list((config.out / "checkpoint").iterdir())) == checkpoint.KEEP
    assert not list(config.out.glob("*.partial"))


# ---------------------------------------------------------------- damaged checkpoints


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip(content: bytes) -> bytes:
    at = len(content) // 3
    return content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :]


def tear(content: bytes) -> bytes:
    return content[: len(content) // 2] + bytes(len(content) - len(content) // 2)


@pytest.mark.parametrize("damage", [cut, flip, tear, lambda content: b""], ids=["cut", "flipped", "torn", "empty"])
def test_a_damaged_newest_checkpoint_is_said_and_passed_over(small, tmp_path, damage):
    config = override(small, {"train.checkpoint_every_passes": 1})
    train(override(config, {"out": tmp_path / "straight"}))
    with pytest.raises(Stopped):
        train(config, AfterPass(4, stop))
    newest = list_checkpoints(config.out / "checkpoint")[0]
    newest.write_bytes(damage(newest.read_bytes()))
    ear = AfterPass(0)
    train(config, ear)
    assert sum("is damaged" in line and newest.name in line for line in ear.notes) == 1
    assert_same_run(config.out, tmp_path / "straight")


@pytest.mark.parametrize(
    ("name", "value"),
    [("run.step", 7), ("run.step", -1), ("run.step", 10**9), ("pass_index", 10**12), ("step_in_pass", 10**12)]
    + [("run.losses", None), ("model.head.weight", None)],
)
def test_a_checkpoint_of_another_run_is_refused_in_one_line(small, name, value):
    """Whole, so it is kept: a count of steps that the run never takes, or tensors of another shape."""
    with pytest.raises(Stopped):
        train(small, AfterPass(3, stop))
    (state, progress), _ = load_checkpoint(small.out / "checkpoint")
    if name in state:
        state[name] = state[name][:1].clone() if value is None else torch.full_like(state[name], value)
    else:
        progress = dataclasses.replace(progress, **{name: value})
    forged = checkpoint.write_checkpoint(small.out / "checkpoint", 99, state, progress)
    with pytest.raises(
        InputError, match="the newest checkpoint is not of this run: .*; choose another --out"
    ) as refused:
        train(small)
    assert "\n" not in str(refused.value) and list_checkpoints(small.out / "checkpoint")[0] == forged


# ---------------------------------------------------------------- damaged metrics


def damage_line(path, number: int, damage) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    lines[number - 1] = damage(lines[number - 1])
    path.write_bytes(b"".join(lines))


@pytest.mark.parametrize(
    "damage", [cut, tear, lambda line: b"\xff\n", lambda line: b"7\n"], ids=["cut", "torn", "bytes", "7"]
)
def test_a_damaged_line_of_metrics_is_left_out_and_said_before_training_goes_on(small, tmp_path, damage):
    train(override(small, {"out": tmp_path / "straight"}))
    straight = metrics(tmp_path / "straight")
    with pytest.raises(Stopped):
        train(small, AfterPass(3, stop))
    damage_line(small.out / "metrics.jsonl", 1, damage)
    lost = 2 if damage in (cut, tear) else 1  # without its end a line runs into the next
    ear = AfterPass(4, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(small, ear)
    assert ear.notes[-1] == (
        f"{small.out}/metrics.jsonl: {lost} of 3 lines lost or damaged, first that of pass 1; continuing without them"
    )
    train(small)
    assert metrics(small.out) == straight[lost:], "none is doubled"


@pytest.mark.parametrize("damage", [cut, tear, None], ids=["cut", "torn", "removed"])
def test_the_line_of_the_last_pass_is_written_again(small, tmp_path, monkeypatch, damage):
    """The figures of the whole run are read from it."""
    config = override(small, {"data.val_frac": 0.25})
    train(override(config, {"out": tmp_path / "straight"}))
    with monkeypatch.context() as broken, pytest.raises(ZeroDivisionError):
        broken.setattr("pocketvit.training.run.finish", lambda *_: 1 / 0)
        train(config)
    if damage:
        damage_line(config.out / "metrics.jsonl", 5, damage)
    else:
        (config.out / "metrics.jsonl").unlink()
    result = train(config)
    assert result.val_accuracy == metrics(tmp_path / "straight")[-1]["val_accuracy"]
    assert metrics(config.out) == metrics(tmp_path / "straight")[0 if damage else 4 :]


# ---------------------------------------------------------------- disks


def break_disk(monkeypatch, call: str, code: int) -> None:
    """Make every later write of a whole file fail in one system call."""

    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    if call == "open":
        monkeypatch.setattr(files, "open", refuse, raising=False)
    else:
        monkeypatch.setattr(files.os, call, refuse)


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENOSPC, "[Nn]o space left"), (errno.EROFS, "Read-only file system")],
    ids=["full", "read-only"],
)
def test_a_failing_disk_is_said_in_a_line_and_costs_no_checkpoint(small, tmp_path, monkeypatch, call, code, words):
    with pytest.raises(InputError, match=words) as refused, monkeypatch.context() as broken:
        train(small, AfterPass(3, lambda: break_disk(broken, call, code)))
    assert "\n" not in str(refused.value) and str(small.out) in str(refused.value)
    (_, progress), said = load_checkpoint(small.out / "checkpoint")
    assert (progress.pass_index, said) == (2, [])
    assert not list((small.out / "checkpoint").glob("*.partial"))
    train(small)
    train(override(small, {"out": tmp_path / "straight"}))
    assert_same_run(small.out, tmp_path / "straight")


def test_a_folder_removed_under_the_run_is_said_and_not_made_again(small):
    with pytest.raises(InputError, match="No such file or directory") as refused:
        train(small, AfterPass(3, lambda: shutil.rmtree(small.out)))
    assert "\n" not in str(refused.value) and str(small.out) in str(refused.value)
    assert not small.out.exists()


def test_a_run_killed_while_it_made_its_folder_starts(small):
    small.out.mkdir()
    (small.out / "config.yaml.partial").write_text("seed: 0\nmod")
    train(small)


# ---------------------------------------------------------------- the command line


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pocketvit", "train", *map(str, arguments)]


@pytest.fixture
def longer(small) -> RunConfig:
    """A run long enough to be hit on its way."""
    return override(small, {"schedule.passes": 40, "train.eval_every_passes": 10, "train.checkpoint_every_passes": 4})


@pytest.mark.long
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"])
def test_a_signalled_command_has_its_exit_code_and_resumes_bit_for_bit(longer, tmp_path, signum, code):
    save_config(longer, tmp_path / "config.yaml")
    process = subprocess.Popen(
        command("--config", tmp_path / "config.yaml", "--out", longer.out), stdout=subprocess.PIPE, text=True
    )
    wait_for_lines(longer.out, 3, lambda: process.poll() is None)
    process.send_signal(signum)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == code
    assert f"pocketvit train --resume {longer.out}" in said
    assert not (longer.out / "result.json").exists()
    train(parse_train(["--resume", str(longer.out)]))
    train(override(longer, {"out": tmp_path / "straight"}))
    assert_same_run(longer.out, tmp_path / "straight")


# ---------------------------------------------------------------- determinism


def test_a_deterministic_run_leaves_pytorch_as_it_was(small, tmp_path):
    train(override(small, {"train.deterministic": True}))
    assert not torch.are_deterministic_algorithms_enabled()
    train(override(small, {"train.deterministic": True, "out": tmp_path / "again"}))
    assert_same_run(small.out, tmp_path / "again")
