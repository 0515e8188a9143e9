"""The doctor finds nothing in a healthy run, and names what is broken in others."""

import itertools
import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from pocketvit.cli import main
from pocketvit.config import override
from pocketvit.data import open_splits
from pocketvit.doctor import checks
from pocketvit.doctor.checks import Finding
from pocketvit.doctor.examine import examine
from pocketvit.doctor.trial import Budget, Trial
from pocketvit.doctor.trials import cost, first_steps
from pocketvit.recipes import recipe
from pocketvit.training.progress import SilentReporter
from pocketvit.training.trainer import Trainer

ALL = ["software", "data", "kernels", "first loss", "gradients", "optim.lr", "one batch", "learning", "cost"]
STANDING = Budget(seconds=1.0, most=60, clock=lambda: 0.0)
"""The clock stands still, so all steps are run on any machine."""


def found(config, tmp_path, budget=STANDING, last="cost") -> dict[str, Finding]:
    """What is found up to a check."""
    findings = {}
    for finding in examine(config, tmp_path / "doctor.png", budget):
        findings[finding.check] = finding
        if finding.check == last:
            break
    return findings


def failed(findings: dict[str, Finding]) -> list[str]:
    return [name for name, finding in findings.items() if finding.state == "FAIL"]


def test_a_healthy_run_passes_every_check_and_leaves_only_the_picture(small, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    findings = found(small(), tmp_path / "here")
    assert list(findings) == ALL
    assert {finding.state for finding in findings.values()} == {"ok"}, findings
    assert "ln 3 = 1.10" in findings["first loss"].found
    assert "600 training and 90 test images of 8 × 8 pixels in 3 classes" in findings["data"].found
    assert "all 20 trained parameters" in findings["gradients"].found
    assert "90 test images" in findings["learning"].found
    assert [file.name for file in (tmp_path / "here").iterdir()] == ["doctor.png"]
    with Image.open("doctor.png") as picture:
        assert picture.format == "PNG" and picture.width > 600


def test_a_block_that_detaches_its_output_cannot_be_trained(small, block, tmp_path):
    config = small(model__block=block("return (x + self.second(self.first(x))).detach()"))
    findings = found(config, tmp_path)
    assert failed(findings) == ["model"] == list(findings)[-1:]
    assert "mine.py:Mine" in findings["model"].found and "cannot be trained" in findings["model"].found


def test_parameters_without_a_gradient_are_named(small, block, tmp_path):
    config = small(model__block=block("return x + self.second(self.first(x).detach())"), model__pool="mean")
    findings = found(config, tmp_path)
    assert failed(findings) == ["gradients"] == list(findings)[-1:]
    assert "2 of 11 parameters: blocks.0.first.weight, blocks.0.first.bias" in findings["gradients"].found
    assert "mine.py:Mine" in findings["gradients"].advice and ".detach()" in findings["gradients"].advice


def test_gradients_that_are_no_numbers_are_named(small, block, tmp_path):
    config = small(model__block=block("return x + self.second(x) + (0 * self.first(x)).abs().sqrt()"))
    findings = found(config, tmp_path)
    assert failed(findings) == ["gradients"]
    assert (
        "NaN or infinity in" in findings["gradients"].found and "blocks.0.first.weight" in findings["gradients"].found
    )


def test_a_model_that_gives_no_numbers_is_noticed(small, block, tmp_path):
    config = small(model__block=block("return x + self.second(self.first(x)) / 0"))
    findings = found(config, tmp_path)
    assert failed(findings) == ["first loss"] and "mine.py:Mine" in findings["first loss"].advice


def test_shuffled_labels_teach_nothing_though_a_batch_can_be_learned(small, tmp_path):
    labels = np.random.default_rng(5).integers(0, 3, 600)
    findings = found(small({"train_labels": labels}), tmp_path)
    assert failed(findings) == ["learning"]
    assert findings["one batch"].state == "ok"
    assert "labels" in findings["learning"].advice


def test_data_that_can_teach_nothing_end_the_examination(small, tmp_path):
    same = found(small({"train_images": np.full((600, 8, 8, 3), 7, np.uint8)}), tmp_path)
    assert failed(same) == ["data"] == list(same)[-1:] and "all training images are the same" in same["data"].found
    unlike = {"train_labels": np.zeros(600, np.int64)}
    assert "class 1 has no training images" in found(small(unlike), tmp_path)["data"].found


def test_images_with_nan_are_refused_in_words(small, tmp_path):
    images = np.random.default_rng(0).random((600, 8, 8, 3), np.float32)
    images[3, 2, 1, 0] = np.nan
    findings = found(small({"train_images": images}), tmp_path)
    assert failed(findings) == ["data"] and "train_images" in findings["data"].found


@pytest.mark.parametrize("seed", [1, 2, 4])
def test_a_learning_rate_far_too_high_is_found_and_not_blamed_on_others(small, tmp_path, seed):
    findings = found(small(seed=seed, optim__lr=100 * small().optim.lr), tmp_path)
    assert failed(findings) == ["optim.lr"]
    low, high = map(float, re.search(r"try --optim\.lr (\S+) to (\S+)$", findings["optim.lr"].advice).groups())
    assert 1e-4 < low < high < 0.1
    assert findings["one batch"].state == "ok"
    assert "at a learning rate of" in findings["learning"].found and findings["learning"].state == "ok"


def test_what_the_data_check_notes_is_a_warning(small, tmp_path):
    config = small()
    with np.load(config.data.source) as held:
        images = held["train_images"].copy()
    images[:9] = images[0]
    with np.load(config.data.source) as held:
        config = small({"test_images": np.concatenate([images[:1], held["test_images"][1:]])})
    finding = found(config, tmp_path, last="data")["data"]
    assert finding.state == "warn" and "1 of the 90 test images is among the training images" in finding.found
    assert finding.advice.startswith("pocketvit data check ")


def test_data_that_cannot_be_read_are_named_as_a_shell_takes_them(small, tmp_path):
    config = override(small(), {"data.source": str(tmp_path / "my photos")})
    finding = found(config, tmp_path)["data"]
    assert finding.state == "FAIL" and f"pocketvit data check '{tmp_path}/my photos' reads" in finding.advice


def test_a_slow_machine_gets_fewer_steps_and_no_verdict_from_them(small, tmp_path):
    ticks = itertools.count()
    labels = np.random.default_rng(5).integers(0, 3, 600)
    slow = Budget(seconds=1.0, most=60, clock=lambda: float(next(ticks)))
    findings = found(small({"train_labels": labels}), tmp_path, slow)
    assert " in 30 steps " in findings["optim.lr"].found and "after 30 steps" in findings["learning"].found
    assert findings["learning"].state == "warn" and "too few steps" in findings["learning"].advice
    assert re.search(r"[\d,]+ images/s; the run's 4 passes take about ", findings["cost"].found)


def test_a_time_budget_leaves_the_passes_open():
    trainer = SimpleNamespace(device=torch.device("cpu"), loader=SimpleNamespace(steps_per_pass=5))
    trial = SimpleNamespace(trainer=trainer, seconds=2.0, steps_timed=10)
    config = override(recipe("digits"), {"schedule.time_budget": "1h"})
    assert (
        cost(trial, config, 0).found == "320 images/s; a pass takes about 1.00\N{NO-BREAK SPACE}s, without evaluations"
    )


def test_steps_fit_the_time():
    assert [Budget(10, 100).steps(0.5, step_s) for step_s in (0.0, 0.01, 0.1, 1.0)] == [100, 100, 50, 30]
    assert Budget(10, 15).steps(0.5, 1.0) == 15


@pytest.mark.parametrize(
    "fields", [{"objective__name": "mae"}, {"objective__name": "dino"}, {"train__freeze": "encoder"}]
)
def test_where_only_the_classifier_learns_labels_the_model_is_not_blamed(small, tmp_path, fields):
    findings = found(small(**fields, model__patch_size=2), tmp_path, replace(STANDING, most=30))
    assert not failed(findings), findings
    assert findings["one batch"].found.startswith("left out: ")


@pytest.mark.parametrize(
    "fields",
    [
        {"model__q_rank": 8, "model__k_rank": 8, "model__v_rank": 8},
        {"model__kv_rank_shared": 8, "model__pool": "mean", "model__drop_path": 0.5},
        {"model__attention": "linear", "model__positions": "rope", "model__head": "mlp"},
        {"objective__drloc": 0.1, "model__pool": "cls_per_class", "optim__name": "muon"},
    ],
)
def test_no_parameter_of_a_built_in_model_is_without_gradient(small, tmp_path, fields):
    config = small(**fields)
    finding = found(config, tmp_path, last="gradients")["gradients"]
    assert finding.state == "ok", finding


def test_a_driver_without_a_pytorch_for_it_is_told(tmp_path, monkeypatch):
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release\n")
    monkeypatch.setattr(checks, "DRIVER", tmp_path / "version")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    finding = checks.software(torch.device("cpu"))
    assert finding.state == "warn" and "driver 570.86.15 is here" in finding.found and "PyTorch" in finding.advice


def test_the_command_prints_what_it_finds_and_answers_with_a_code(small, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = small({"train_images": np.zeros((600, 8, 8, 3), np.uint8)})
    arguments = ["doctor", "digits", "--data", config.data.source, "--data.cache-dir", str(tmp_path / "cache")]
    with pytest.raises(SystemExit) as left:
        main(arguments)
    lines = capsys.readouterr().out.splitlines()
    assert left.value.code == 1 and lines[0].startswith("ok    software")
    assert lines[1].startswith("FAIL  data") and lines[2].strip() == "-> look at the files and how they are read"
    with pytest.raises(SystemExit) as left:
        main([*arguments, "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert left.value.code == 1 and [one["state"] for one in answer] == ["ok", "FAIL"]
    with pytest.raises(SystemExit) as left:
        main(["doctor", "--optim.lrr", "1"])
    assert left.value.code == 2 and "--optim.lr" in capsys.readouterr().err


def test_a_rate_that_ruins_the_first_steps_is_found_without_a_range_test(small, tmp_path):
    config = small(optim__lr=1.0)
    budget = replace(STANDING, most=30)
    splits = open_splits(config.data)
    trial = Trial(
        Trainer(override(config, {"schedule.passes": 2}), splits, torch.device("cpu"), SilentReporter()), budget
    )
    finding = first_steps(trial, 1.0)
    assert finding.state == "FAIL" and finding.advice.startswith("lower --optim.lr")


def test_every_trial_begins_at_the_same_place(small):
    config = small(model__drop_path=0.2)
    trial = Trial(Trainer(config, open_splits(config.data), torch.device("cpu"), SilentReporter()), STANDING)
    factors = np.linspace(0.1, 1, 25)  # more than a pass has
    losses = trial.run(factors)
    trial.by_heart(trial.one_batch()[0], 1.0, 5, lambda *_: False)
    assert np.array_equal(trial.run(factors), losses) and len(losses) == 25
    assert len(trial.run(np.full(60, 1e4))) < 60, "it ends when the loss has blown up"


@pytest.mark.parametrize("balance", ["none", "loss", "sampling"])
def test_one_who_sees_no_image_answers_by_frequencies(small, balance):
    labels = np.repeat([0, 1, 2], [480, 60, 60])
    config = small({"train_labels": labels}, data__balance=balance, optim__label_smoothing=0.3)
    trainer = Trainer(config, open_splits(config.data), torch.device("cpu"), SilentReporter())
    shares = [0.8, 0.1, 0.1] if balance == "none" else [1 / 3] * 3
    expected = np.log(0.7 * np.array(shares) + 0.1)
    np.testing.assert_allclose(checks.constant_logits(trainer).numpy(), expected, rtol=1e-5)
