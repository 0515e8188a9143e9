"""Bench and profile on a GPU: what only there can be seen."""

import json

import pytest
import torch

from pocketvit.bench import modes, roofline
from pocketvit.bench.profile import profile
from pocketvit.bench.throughput import bench
from pocketvit.config import override
from pocketvit.recipes import recipe

pytestmark = pytest.mark.gpu

SMALL = {"model.depth": 2, "train.device": "cuda"}


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(roofline, "MATRIX_SIZE", {"cuda": 4096})
    monkeypatch.setattr(roofline, "COPY_BYTES", {"cuda": 2**26})
    monkeypatch.setattr(modes, "PASS_IMAGES", {"cuda": 2_048})
    monkeypatch.setattr(modes, "REPEAT_S", 0.02)
    return override(recipe("paper"), SMALL)


def test_all_variants_side_by_side(small):
    result = bench(small, batch_sizes=(64, 128), repeats=2, starts=False)
    assert {row["variant"] for row in result["rows"]} == {"eager", "compiled", "fused", "persistent"}
    assert not any(row["error"] for row in result["rows"])
    assert all(row["peak_memory_gib"] > 0 for row in result["rows"])
    assert all((row["not_fused"] is None) == (row["variant"] in ("fused", "persistent")) for row in result["rows"])
    steps = [row for row in result["rows"] if row["mode"] == "step"]
    assert all(row["batch_ms"] > row["flop_floor_ms"] > 0 for row in steps), "nothing is faster than its floor"
    eager, _, fused, persistent = (row["images_per_s"] for row in steps[:4])
    assert persistent > fused > eager


def test_memory_is_that_of_the_measurement_alone(small, tmp_path, monkeypatch):
    """Whatever was measured before in the same process, and although the first time compiles (with an empty cache)."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    peaks = []
    for _ in range(3):
        rows = bench(small, batch_sizes=(64,), repeats=1, starts=False)["rows"]
        peaks.append([row["peak_memory_gib"] for row in rows])
    assert peaks[1] == pytest.approx(peaks[0], rel=0.02) and peaks[2] == pytest.approx(peaks[0], rel=0.02)


def test_memory_that_runs_out_is_a_row(small):
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.05)
    try:
        result = bench(small, batch_sizes=(16_384, 64), variants=("eager",), repeats=1, starts=False)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    errors = {(row["batch_size"], row["mode"]): row["error"] for row in result["rows"]}
    assert errors[16_384, "step"] == "out of memory"
    assert not any(error for (size, _), error in errors.items() if size == 64)


@pytest.mark.parametrize("kernels", ["reference", "auto"])
def test_kernels_find_their_phases(tmp_path, kernels):
    config = override(recipe("paper"), SMALL | {"batch_size": 64, "train.kernels": kernels})
    summary = profile(config, tmp_path)
    phases = summary["phases_ms"]
    assert phases["backward"] > phases["forward"] > phases["optimizer"] > 0 and phases["data"] > 0
    assert phases["other"] < 0.2 * summary["busy_ms"]
    assert summary["busy_ms"] < summary["step_ms"] + phases["data"] + 0.1
    assert json.loads((tmp_path / "profile.json").read_text()) == summary
