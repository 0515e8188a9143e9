"""Every objective in whole runs: resumed, on several processes, compiled."""

from pathlib import Path

import numpy as np
import pytest
import torch
from objective_cases import OBJECTIVES, save_teacher, with_teacher
from safetensors import safe_open
from test_distributed import curve
from test_run import Interrupt, metrics, same_run
from worker_processes import gradients, together

from pocketvit.config import config_hash, load_config, override
from pocketvit.config.objective import WITHOUT_LABELS
from pocketvit.errors import InputError
from pocketvit.inference.evaluate import evaluate_run
from pocketvit.inference.trained_model import load_model
from pocketvit.training import Stopped, train
from pocketvit.training.checkpoint import list_checkpoints
from pocketvit.training.distributed import ALONE
from pocketvit.training.progress import SilentReporter
from pocketvit.training.run import prepare


@pytest.fixture(scope="module", params=OBJECTIVES)
def values(request, tmp_path_factory):
    """One of the objectives."""
    teacher = save_teacher(tmp_path_factory.mktemp("teacher") / "teacher.safetensors", ("red", "green", "blue"))
    return with_teacher(OBJECTIVES[request.param], teacher)


@pytest.fixture
def config(values, small):
    """A small run with one of the objectives."""
    return override(small, values)


@pytest.fixture(scope="module")
def alone(values, small_in, tmp_path_factory):
    """The result of such a run in one process, which nothing stopped."""
    return train(override(small_in(tmp_path_factory.mktemp("alone")), values))


def test_a_run_stops_and_resumes_bit_for_bit(config, alone):
    first, *_, last = metrics(alone.run_folder)
    assert last["train_accuracy"] > first["train_accuracy"] or last["loss"] < first["loss"], "it learns"
    with pytest.raises(Stopped):
        train(config, Interrupt(9))
    with safe_open(list_checkpoints(config.out / "checkpoint")[0], framework="pt") as file:
        held = set(file.keys())
    layers = prepare(config, ALONE, SilentReporter()).objective.layers
    assert {f"objective.{name}" for name in layers.state_dict()} <= held
    trained = {name for name, parameter in layers.named_parameters() if parameter.requires_grad}
    assert {f"optim.adamw.exp_avg.objective.{name}" for name in trained} <= held
    train(config)
    assert same_run(alone.run_folder, config.out)
    assert not any(name.startswith("objective.") for name in load_model(config.out).model.state_dict())


def test_the_own_layers_start_by_the_seed_and_are_trained(config):
    trainer, same, other = (prepare(override(config, {"seed": seed}), ALONE, SilentReporter()) for seed in (0, 0, 1))
    trainer.step.set_chunk(trainer.chunks.load(0, 0, 2))
    trainer.step()
    trainer.step()
    for name, start in filter(lambda named: named[1].requires_grad, same.objective.layers.named_parameters()):
        assert not torch.equal(trainer.objective.layers.get_parameter(name), start), name
    drawn = [layers.state_dict() for layers in (same.objective.layers, other.objective.layers)]
    differ = any(not torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[0])
    assert differ == bool(drawn[0])
    assert differ or not config.objective.drloc and config.objective.name not in WITHOUT_LABELS


@pytest.mark.parametrize("size", [2, 3])
def test_gradients_equal_those_of_one_process(config, tmp_path, size):
    losses, rows = gradients(config, torch.float64)
    for other_losses, other_rows in together(size, tmp_path, gradients, config, torch.float64):
        torch.testing.assert_close(other_losses, losses, rtol=1e-10, atol=0)
        assert ((other_rows - rows).norm(dim=1) / rows.norm(dim=1)).max() < 1e-10


def test_a_run_on_two_processes_ends_where_one_does(config, alone, tmp_path):
    results = together(2, tmp_path, train, config)
    assert results[0].config_hash == alone.config_hash
    np.testing.assert_allclose(curve(config.out), curve(alone.run_folder), rtol=1e-4)


def test_it_compiles_in_one_piece_and_gives_the_same(config, monkeypatch):
    torch.compiler.reset()
    compiled, losses = torch.compile, []
    monkeypatch.setattr(torch, "compile", lambda *a, **k: compiled(*a, **k, backend="eager"))
    for compile in (False, True):
        trainer = prepare(override(config, {"train.compile": compile}), ALONE, SilentReporter())
        trainer.step.set_chunk(trainer.chunks.load(0, 0, 2))
        trainer.step()
        trainer.step()
        losses.append(trainer.step.losses[:2])
    torch.testing.assert_close(*losses)


def test_a_teacher_is_needed_no_more_after_the_run(small, tmp_path):
    teacher = save_teacher(tmp_path / "teacher.safetensors", ("red", "green", "blue"))
    result = train(override(small, {"objective.teacher": teacher, "schedule.passes": 2}))
    assert result.images_total == 1000 + 2 * 96
    teacher.unlink()
    trained = load_model(small.out)
    assert trained.model.tokens.distilled.shape == (1, 1, 32) and trained.images == result.images_total
    assert evaluate_run(small.out)["accuracy"] == result.test_accuracy
    assert config_hash(load_config(small.out / "config.yaml"), result.data_fingerprint) == result.config_hash


@pytest.mark.parametrize(
    ("class_names", "side", "words"),
    [
        (("red", "blue", "green"), 16, "was trained on other classes: red, blue, green"),
        (("red", "green", "blue"), 8, "takes images of 8 × 8 pixels, but the run has images of 16 × 16 pixels"),
    ],
)
def test_a_teacher_that_cannot_answer_is_refused(small, tmp_path, class_names, side, words):
    teacher = save_teacher(tmp_path / "teacher.safetensors", class_names, side)
    with pytest.raises(InputError) as refused:
        prepare(override(small, {"objective.teacher": teacher}), ALONE, SilentReporter())
    assert f"objective.teacher={teacher} {words}" in str(refused.value)


def test_a_teacher_with_code_of_its_own_is_refused(small, tmp_path):
    example = Path(__file__).parents[2] / "docs" / "examples" / "my_attention.py"
    train(override(small, {"model.attention": f"{example}:MyAttention", "schedule.passes": 2}))
    with pytest.raises(InputError, match="has user-defined code, which a teacher cannot have"):
        prepare(override(small, {"objective.teacher": small.out, "out": tmp_path / "x"}), ALONE, SilentReporter())


@pytest.mark.parametrize("name", ["dino", "mae"])
def test_a_run_without_labels_is_started_from_and_probed(small, tmp_path, name):
    """As docs/starting.md does it."""
    first = train(override(small, {"objective.name": name, "schedule.passes": 2}))
    values = {"init_from": small.out, "out": tmp_path / "probe", "train.freeze": "encoder", "optim.lr": 1e-2}
    probe = train(override(small, values))
    assert probe.test_accuracy >= 0.9, "three colours are easy"
    assert probe.images_total == 7 * 96 and first.images_total is None
    start = prepare(override(small, values), ALONE, SilentReporter()).start
    assert start.notes[0] == f"the head is new: {name} learns without labels, so the head was only a probe"
    assert start.notes[1].endswith("; new: head.bias, head.weight")


@pytest.mark.parametrize(
    ("values", "other"),
    [
        ({"model.stem": "conv"}, "model.stem=conv"),
        ({"model.patch_stride": 2}, "model.patch_stride=2"),
        ({"model.positions": "rope"}, "model.positions=rope"),
        ({"model.attention": "sparse"}, "model.attention=sparse"),
    ],
)
def test_an_autoencoder_is_refused_where_patches_see_each_other_or_need_all(small, values, other):
    with pytest.raises(InputError, match=f"objective.name=mae cannot be combined with {other}"):
        override(small, {"objective.name": "mae"} | values)


def test_an_autoencoder_needs_two_patches(small):
    with pytest.raises(InputError, match="an image is a single one"):
        prepare(override(small, {"objective.name": "mae", "model.patch_size": 16}), ALONE, SilentReporter())
