"""The scripts that measure on GPUs, as far as that can be seen without one."""

import runpy
from pathlib import Path

import pytest

from pocketvit.bench import floors, throughput
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
