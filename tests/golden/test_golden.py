"""The first losses of every recipe and objective are those on file; a changed constant would show.

`python tests/golden/losses.py` writes them anew after a change that is meant, with `--device cuda` on a GPU.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pocketvit.config.training import ScheduleConfig

sys.path.insert(0, str(Path(__file__).parent))

from losses import LEAST, RUNS, STEPS, file_of, losses, repeated, tolerances


def errors(name: str, folder: Path, device: str = "cpu") -> np.ndarray:
    """The relative differences from the losses on file, in units of the tolerance, (STEPS,)."""
    file = file_of(device)
    assert file.exists(), f"nobody has written this file yet; run: python tests/golden/losses.py --device {device}"
    held = json.loads(file.read_text())
    assert held["losses"].keys() == RUNS.keys()
    return np.abs(np.divide(losses(name, device, folder), held["losses"][name]) - 1) / held["tolerances"][name]


@pytest.mark.parametrize("name", RUNS)
def test_the_first_losses_are_those_on_file(name, tmp_path):
    found = errors(name, tmp_path)
    assert found.shape == (STEPS,) and found.max() < 1


@pytest.mark.gpu
@pytest.mark.parametrize("name", RUNS)
def test_the_first_losses_on_a_gpu_are_those_on_file(name, tmp_path):
    assert errors(name, tmp_path, "cuda").max() < 1


@pytest.mark.parametrize("change", ["eps", "warm-up", "smoothing"])
def test_a_small_change_shows(change, tmp_path, monkeypatch):
    match change:
        case "eps":
            monkeypatch.setattr("pocketvit.model.norm.NORM_EPS", 1e-5)
        case "warm-up":
            steps = ScheduleConfig.warmup_steps
            monkeypatch.setattr(ScheduleConfig, "warmup_steps", lambda self, per_pass: steps(self, per_pass) + 1)
        case "smoothing":
            monkeypatch.setitem(RUNS, "digits", {"optim.label_smoothing": 0.101})
    assert errors("digits", tmp_path).max() > 3


def test_a_gpu_is_compared_with_plain_pytorch_and_the_cpu_with_others(monkeypatch):
    made = []

    def run(command, env, **_):
        made.append((command[command.index("--print") + 1 :], env["OMP_NUM_THREADS"]))
        return SimpleNamespace(stdout=json.dumps({"a": [1.0, 2.0 + 1e-3 * len(made)]}))

    monkeypatch.setattr("losses.subprocess.run", run)
    kept, *others = repeated("cuda")
    assert made == [([], "1"), (["--plain"], "1")] and tolerances("cuda", kept, others) == {"a": 1e-3}
    made.clear()
    assert len([*repeated("cpu")]) == 4 and made[:2] == [([], "1"), ([], "2")]


def test_runs_that_are_all_alike_leave_a_tolerance():
    assert tolerances("cuda", {"a": [1.0, 2.0]}, [{"a": [1.0, 2.0]}]) == {"a": LEAST} and LEAST > 0
