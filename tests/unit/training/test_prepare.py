"""Before the first step: what is refused or noted while a run is built, and what is said when a GPU's memory is too small."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from objective_cases import save_teacher

from pocketvit.config import RunConfig, override
from pocketvit.data import Dataset, Split
from pocketvit.errors import InputError
from pocketvit.recipes import recipe
from pocketvit.training import run, train
from pocketvit.training.distributed import ALONE, Processes
from pocketvit.training.progress import SilentReporter
from pocketvit.training.run import prepare
from pocketvit.training.setup import stacks_by_side
from pocketvit.training.step import TrainStep
from pocketvit.training.trainer import Trainer

NAMES = ("a", "b", "c")
IMAGES = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
DATA = Dataset("made", Split(IMAGES, np.arange(24) % 3), Split(IMAGES, np.arange(24) % 3), NAMES)


def config_of(**values: Any) -> RunConfig:
    small = {"batch_size": 8, "model.width": 32, "model.depth": 1, "model.num_heads": 2, "train.device": "cpu"}
    small |= {"schedule.passes": 2, "schedule.warmup_passes": 0, "augment.policy": "none"}
    return override(recipe("paper"), small | {name.replace("__", "."): value for name, value in values.items()})


class Heard(SilentReporter):
    """Keeps what a run says, and whether it is told its end."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.ended: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)

    def stop(self) -> None:
        self.ended.append("stop")

    def closed(self) -> None:
        self.ended.append("closed")


@dataclass(frozen=True)
class Second(Processes):
    """The second process of two, which hears these answers of the first."""

    rank: int = 1
    size: int = 2
    answers: list[Any] = field(default_factory=list)

    def from_first(self, make: Any) -> Any:
        return self.answers.pop(0)


@pytest.mark.parametrize(("rank", "error"), [(0, InputError), (1, SystemExit)])
def test_several_processes_on_apples_gpu_are_refused_and_the_first_says_so(rank, error, monkeypatch):
    monkeypatch.setattr(run, "choose_device", lambda _: torch.device("mps"))
    with pytest.raises(error, match="train.device=mps runs in one process only" if rank == 0 else "2"):
        prepare(config_of(), Processes(rank, 2), SilentReporter(), DATA)


def test_a_host_with_other_files_than_the_first_process_is_named(tmp_path):
    """Else its gradients would be summed with those of other images or another model."""
    there = DATA.fingerprint
    with pytest.raises(InputError, match="memory.* on .* differs from the data of the first process; give every host"):
        prepare(config_of(data__source="memory"), Second(answers=[None, "0" * 32]), SilentReporter(), DATA)
    config = config_of(init_from=save_teacher(tmp_path / "start.safetensors", NAMES, side=8))
    with pytest.raises(InputError, match="init_from on .* differs from that of the first process"):
        prepare(config, Second(answers=[None, there, {"init_from": "0"}]), SilentReporter(), DATA)


def test_a_long_run_is_warned_of_before_its_data_are_downloaded(monkeypatch):
    def refuse(*_: object) -> None:
        raise InputError("downloaded")

    heard = Heard()
    with monkeypatch.context() as offline, pytest.raises(InputError, match="downloaded"):
        offline.setattr(run, "open_splits", refuse)
        prepare(config_of(data__source="cifar10", schedule__passes=5_000), ALONE, heard)
    [line] = heard.lines
    assert line.startswith("CAUTION: this run takes roughly ")
    monkeypatch.setattr(run, "CPU_FLOP_PER_S", 1.0)
    prepare(config_of(), ALONE, heard, DATA)
    assert sum(line.startswith("CAUTION: this run takes") for line in heard.lines) == 2, "others once they are opened"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"optim__name": "sgd", "optim__weight_decay": 0.05}, True),
        ({"optim__name": "sgd", "optim__weight_decay": 1e-4}, False),
        ({"optim__name": "adamw", "optim__weight_decay": 0.05}, False),
    ],
)
def test_a_decay_that_is_usual_only_where_it_is_decoupled_is_noted(values, said):
    heard = Heard()
    prepare(config_of(**values), ALONE, heard, DATA)
    assert any("weight_decay=0.05 is added to the gradient with optim.name=sgd" in line for line in heard.lines) == said


@pytest.mark.parametrize("split", ["train", "test"])
def test_average_precision_needs_a_class_in_every_measured_split(split):
    has = np.arange(24)[:, None] % (2, 3, 4) == 0
    splits = {name: Split(IMAGES, has & (name != split)) for name in ("train", "test")}
    config = config_of(objective__name="multilabel")
    if split == "train":
        prepare(config, ALONE, SilentReporter(), Dataset("made", **splits, class_names=NAMES))
        return
    with pytest.raises(InputError, match="no test image of .* has a class, so average precision cannot be measured"):
        prepare(config, ALONE, SilentReporter(), Dataset("made", **splits, class_names=NAMES))


def test_smaller_sides_need_square_images():
    wide = Split(np.zeros((24, 8, 16, 3), np.uint8), np.arange(24) % 3)
    with pytest.raises(InputError, match=r"schedule.sides=\(4,\) needs square images, and these have 16 × 8"):
        prepare(config_of(schedule__sides=(4,)), ALONE, SilentReporter(), Dataset("made", wide, wide, NAMES))
    trainer = prepare(config_of(schedule__sides=(4,)), ALONE, SilentReporter(), DATA)
    by_side = stacks_by_side(trainer.config, trainer.model, trainer.objective)
    assert [stacks[0].num_tokens for stacks in by_side] == [4 + 1, 1 + 1]


def test_a_model_that_does_not_fit_the_gpu_is_refused_in_one_line(monkeypatch):
    def too_large(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("Tried to allocate 20 TiB")

    monkeypatch.setattr(run, "Trainer", too_large)
    with pytest.raises(InputError, match="out of GPU memory before the first step; is another process using this GPU"):
        prepare(config_of(), ALONE, SilentReporter(), DATA)


@pytest.mark.parametrize(
    ("fits", "advice"),
    [
        (6, "about batch_size=6 would fit, or the whole batch with train.micro_batch=6"),
        (0, "not even a small batch fits on this GPU"),
    ],
)
def test_a_step_that_does_not_fit_says_which_batch_would(fits, advice, monkeypatch, tmp_path):
    measured, ordinary = [], TrainStep.__call__

    def full(step: TrainStep) -> None:
        if len(step.chunk.labels) >= 8 and int(step.step) == 1:
            raise torch.cuda.OutOfMemoryError("Tried to allocate 20 GiB")
        ordinary(step)

    def largest(attempt: Any, device: torch.device) -> int:
        attempt(4)
        measured.append(device.type)
        return fits

    monkeypatch.setattr(TrainStep, "__call__", full)
    monkeypatch.setattr("pocketvit.training.trainer.largest_batch", largest)
    heard = Heard()
    with pytest.raises(InputError) as refused:
        train(config_of(out=tmp_path / "run"), heard, data=DATA)
    assert str(refused.value) == f"out of GPU memory at batch_size=8; {advice}"
    assert measured == ["cpu"] and heard.ended == ["stop", "closed"]
    with pytest.raises(InputError, match="out of GPU memory at"):
        train(config_of(out=tmp_path / "run"), heard, data=DATA)  # in the same folder, which is free again


def test_memory_is_measured_with_whole_images_and_for_all_processes(monkeypatch):
    taken = []
    monkeypatch.setattr("pocketvit.training.trainer.largest_batch", lambda run, _: taken.append(run(4)) or 4)
    trainer = prepare(config_of(train__micro_batch=2), ALONE, SilentReporter(), DATA)
    trainer.processes = Processes(0, 2)
    assert Trainer.largest_batch(trainer) == 8 and taken == [None]
    trainer.drop_graph()
    assert not hasattr(trainer, "step"), "its memory is free"
