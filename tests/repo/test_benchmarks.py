"""The scripts that measure on GPUs, as far as that can be seen without one."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from pocketvit.bench import floors, throughput
from pocketvit.bench.choices import choices_table
from pocketvit.config import override
from pocketvit.recipes import recipe

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def speed() -> dict:
    """benchmarks/speed.py."""
    return runpy.run_path(str(BENCHMARKS / "speed.py"))


def test_speed_has_every_choice_of_the_design_space_that_changes_the_model(speed):
    assert all(override(recipe("paper"), values) for values in speed["CHOICES"].values())
    assert {f"mla-{form}" for form in ("q", "k", "qk", "kv", "qkv")} < speed["CHOICES"].keys()


def test_speed_measures_training_at_both_batch_sizes(speed, monkeypatch):
    monkeypatch.setattr(floors, "MATRIX_SIZE", {"cpu": 128})
    monkeypatch.setattr(floors, "COPY_BYTES", {"cpu": 2**20})
    monkeypatch.setattr(throughput, "PASS_IMAGES", {"cpu": 0})
    monkeypatch.setattr(throughput, "REPEAT_S", 0.005)
    tiny = {"model.width": 16, "model.depth": 1, "model.num_heads": 2, "train.device": "cpu"}
    result = speed["measure"](override(recipe("digits"), tiny), batch_sizes=(4, 8), repeats=1)
    assert [(row["batch_size"], row["variant"], row["mode"]) for row in result["rows"]] == [
        (size, "fused", mode) for size in (4, 8) for mode in ("step", "recipe")
    ]
    assert len(result["load_averages"]) == 2
    assert "not measured yet" not in choices_table({"tiny": result})


def test_a_file_of_speed_says_where_of_what_and_how(speed, monkeypatch, tmp_path):
    """And what has a file is not measured again."""
    row = {"batch_size": 256, "variant": "fused", "mode": "step", "images_per_s": 1e5}
    monkeypatch.setitem(speed["main"].__globals__, "measure", lambda config: {"rows": [row]})
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(sys, "argv", ["speed.py", "--only", "mla-q,heads3", "--out", str(tmp_path)])
    (tmp_path / "heads3.json").write_text("old")
    speed["main"]()
    content = json.loads((tmp_path / "mla-q.json").read_text())
    assert content["choice"] == {"model.q_rank": 64} and content["command"].endswith("--only mla-q")
    assert (tmp_path / "heads3.json").read_text() == "old"


@pytest.fixture(scope="module")
def scaling() -> dict:
    """benchmarks/scaling.py."""
    return runpy.run_path(str(BENCHMARKS / "scaling.py"))


def test_scaling_runs_each_seed_or_batch_size_on_each_number_of_gpus(scaling):
    def names(accuracy: bool) -> list[str]:
        return [name for name, *_ in scaling["runs"](accuracy, [1, 2, 4], [256, 1024], [0, 2])]

    assert names(accuracy=False) == ["1-256", "1-1024", "2-256", "2-1024", "4-256", "4-1024"]
    assert names(accuracy=True) == ["paper-2gpus-s0", "paper-2gpus-s2", "paper-4gpus-s0", "paper-4gpus-s2"]
    assert scaling["accuracy_config"](2) == override(recipe("paper"), {"seed": 2}), "the paper's run, nothing changed"
    assert scaling["speed_config"](1024).batch_size == 1024


def test_scaling_runs_under_torchrun_and_keeps_the_result(scaling, tmp_path):
    tiny = {"model.width": 16, "model.depth": 1, "model.num_heads": 2, "schedule.passes": 2, "train.device": "cpu"}
    config = override(recipe("digits"), tiny | {"schedule.warmup_passes": 0, "batch_size": 256})
    result = scaling["run"](2, config, tmp_path / "run")
    written = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result == written | {"batch_size": 256, "pass_train_s": result["pass_train_s"]}
    assert written["num_processes"] == 2 and len(result["pass_train_s"]) == 2
    assert sum(result["pass_train_s"]) == pytest.approx(written["train_s"])


def test_scaling_makes_only_what_is_missing(scaling, monkeypatch, tmp_path):
    started = []

    def train(command, **how):
        started.append(" ".join(command))
        folder = Path(command[-1])
        folder.mkdir()
        (folder / "metrics.jsonl").write_text('{"train_s": 1.5}\n')
        (folder / "result.json").write_text('{"images_per_s": 1e5, "test_accuracy": 0.94, "num_gpus": 2}')

    monkeypatch.setattr(subprocess, "run", train)
    words = ["scaling.py", "--accuracy", "--gpus", "1,2", "--seeds", "0,1", "--data", "here", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    (tmp_path / "paper-2gpus-s0.json").write_text("old")
    scaling["main"]()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["paper-2gpus-s0.json", "paper-2gpus-s1.json"]
    assert len(started) == 1 and "--nproc-per-node=2 -m pocketvit train paper" in started[0]
    assert "--seed 1" in started[0] and "--data.source here" in started[0] and "passes" not in started[0]
    assert json.loads((tmp_path / "paper-2gpus-s1.json").read_text())["pass_train_s"] == [1.5]
