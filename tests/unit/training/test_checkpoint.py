"""Checkpoints are written beside the training that goes on."""

import hashlib
from dataclasses import replace
from threading import Event

import pytest
import safetensors.torch
import torch

from pocketvit.errors import InputError
from pocketvit.training import checkpoint
from pocketvit.training.checkpoint import CheckpointWriter, Progress, list_checkpoints, load_checkpoint

HERE = Progress(pass_index=1, step_in_pass=0, train_s=2.0)


@pytest.fixture
def disk(monkeypatch) -> Event:
    """Nothing is written before this is set."""
    open_again, write = Event(), checkpoint.write_atomically

    def slow(*arguments):
        assert open_again.wait(60)
        write(*arguments)

    monkeypatch.setattr(checkpoint, "write_atomically", slow)
    return open_again


def test_the_state_may_change_while_it_is_written(tmp_path, disk):
    state = {"weight": torch.arange(5.0)}
    with CheckpointWriter(tmp_path / "checkpoint") as checkpoints:
        checkpoints.save(7, state, HERE)
        assert not list_checkpoints(tmp_path / "checkpoint"), "saving came back before anything was written"
        state["weight"].zero_()
        disk.set()
        checkpoints.wait()
    (found, progress), _ = load_checkpoint(tmp_path / "checkpoint")
    assert torch.equal(found["weight"], torch.arange(5.0)) and progress == HERE


@pytest.mark.parametrize("said", ["persistent", None])
def test_the_kernels_that_ran_are_kept(tmp_path, monkeypatch, said):
    """Older versions had one kind and said nothing."""
    if said is None:
        monkeypatch.setattr(
            checkpoint, "asdict", lambda progress: {k: v for k, v in vars(progress).items() if k != "kernels"}
        )
    with CheckpointWriter(tmp_path / "checkpoint") as checkpoints:
        checkpoints.save(1, {"weight": torch.ones(1)}, replace(HERE, kernels="persistent"))
    (_, progress), _ = load_checkpoint(tmp_path / "checkpoint")
    assert progress == replace(HERE, kernels=said or "fused")


def test_one_is_written_at_a_time_and_leaving_waits_for_it(tmp_path, disk):
    with CheckpointWriter(tmp_path / "checkpoint") as checkpoints:
        disk.set()
        for step in range(1, 5):
            checkpoints.save(step, {"weight": torch.full((3,), float(step))}, HERE)
            assert len(list_checkpoints(tmp_path / "checkpoint")) >= min(step - 1, checkpoint.KEEP)
    assert len(list_checkpoints(tmp_path / "checkpoint")) == checkpoint.KEEP
    (found, _), _ = load_checkpoint(tmp_path / "checkpoint")
    assert found["weight"].tolist() == [4.0, 4.0, 4.0]


def test_what_a_killed_process_was_writing_goes_with_the_next_one(tmp_path, monkeypatch):
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("pocketvit.files.os.replace", killed)
        checkpoint.write_checkpoint(tmp_path, 1, {"weight": torch.ones(1)}, HERE)
    [torn] = tmp_path.iterdir()
    assert torn.name.endswith(".partial") and load_checkpoint(tmp_path) == (None, [])
    whole = checkpoint.write_checkpoint(tmp_path, 2, {"weight": torch.ones(1)}, HERE)
    assert [*tmp_path.iterdir()] == [whole]


@pytest.mark.parametrize("then", ["save", "wait"])
def test_what_could_not_be_written_is_said_once_and_next(tmp_path, then):
    with CheckpointWriter(tmp_path / "gone" / "checkpoint") as checkpoints:
        checkpoints.save(1, {"weight": torch.ones(1)}, HERE)
        with pytest.raises(InputError, match="No such file or directory"):
            checkpoints.save(2, {"weight": torch.ones(1)}, HERE) if then == "save" else checkpoints.wait()
        checkpoints.wait()


def test_what_cannot_be_read_now_is_not_taken_for_damaged(tmp_path, monkeypatch):
    with CheckpointWriter(tmp_path / "checkpoint") as checkpoints:
        checkpoints.save(1, {"weight": torch.ones(1)}, HERE)

    def refuse(path):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken, pytest.raises(InputError, match="cannot read .*: Input/output error"):
        broken.setattr(type(tmp_path), "read_bytes", refuse)
        load_checkpoint(tmp_path / "checkpoint")
    assert load_checkpoint(tmp_path / "checkpoint")[0] is not None


def test_a_checkpoint_larger_than_its_run_is_not_read(tmp_path):
    path = checkpoint.write_checkpoint(tmp_path, 1, {"weight": torch.ones(1)}, HERE)
    with path.open("ab") as file:
        file.truncate(2**33)
    with pytest.raises(InputError, match=f"cannot read {path}: larger than 1,000 bytes"):
        load_checkpoint(tmp_path, 1_000)


@pytest.mark.parametrize(
    "content",
    ["", "[", "[]", "1", "{}", '{"pass_index": -1, "step_in_pass": 0, "train_s": 1.0}', "[" * 99_999]
    + [f'{{"pass_index": 1, "step_in_pass": {value}, "train_s": 1.0}}' for value in ("0.5", '"0"', "null", "true")]
    + [f'{{"pass_index": 1, "step_in_pass": 0, "train_s": {value}}}' for value in ("NaN", "Infinity", "[]", "0", "-1")],
    ids=lambda content: content[:50],
)
def test_a_checkpoint_that_says_no_progress_is_set_aside(tmp_path, content):
    whole = checkpoint.write_checkpoint(tmp_path, 1, {"weight": torch.ones(1)}, HERE)
    broken = safetensors.torch.save({"weight": torch.ones(1)}, metadata={"progress": content})
    digest = hashlib.sha256(broken).hexdigest()[:16]
    (tmp_path / f"step-000000002.{digest}.safetensors").write_bytes(broken)
    (_, progress), said = load_checkpoint(tmp_path)
    assert progress == HERE and list_checkpoints(tmp_path) == [whole] and "using the one before it" in said[0]
