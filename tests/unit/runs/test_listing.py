"""What is known of the runs in a folder, whatever state they are in."""

import json
from pathlib import Path

import pytest
from synthetic_results import result_content

from pocketvit.errors import InputError
from pocketvit.runs.listing import list_runs


def make(folder: Path, *, passes: int = 2, started: str = "2026-01-01T10:00:00", **result) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("recipe: digits\nseed: 4\nschedule: {passes: 30}\n")
    (folder / "env.json").write_text(json.dumps({"started": started, "device": "a CPU"}))
    lines = [
        {"pass": k, "images": k, "loss": 1.0, "lr": 0.1, "train_s": 1.5 * k, "test_accuracy": 0.1 * k}
        for k in range(1, passes + 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if result:
        (folder / "result.json").write_text(json.dumps(result_content(**result)))
    return folder


def test_runs_are_found_at_any_depth_by_their_start(tmp_path):
    make(tmp_path / "a" / "late", started="2026-01-03", passes=30, test_accuracy=0.75, seed=7, num_params=12)
    make(tmp_path / "early", started="2026-01-02")
    make(tmp_path / "a" / "deep" / "first", started="2026-01-01")
    make(tmp_path / ".hidden")
    make(tmp_path / "early" / "code")
    (tmp_path / "no-run").mkdir()
    (tmp_path / "no-run" / "config.yaml").write_text("a: 1")
    runs = list_runs(tmp_path)
    assert [Path(run.folder).name for run in runs] == ["first", "early", "late"]
    finished, unfinished = runs[2], runs[1]
    assert (finished.state, finished.test_accuracy, finished.seed, finished.num_params) == ("finished", 0.75, 7, 12)
    assert (finished.passes, finished.all_passes, finished.train_s, finished.device) == (30, 30, 10.0, "a GPU")
    assert (unfinished.state, unfinished.test_accuracy, unfinished.seed) == ("unfinished", 0.2, 4)
    assert (unfinished.passes, unfinished.all_passes, unfinished.train_s) == (2, 30, 3.0)
    assert (unfinished.recipe, unfinished.num_params, unfinished.device) == ("digits", None, "a CPU")
    assert list_runs(tmp_path / "early")[0].folder == str(tmp_path / "early")


@pytest.mark.parametrize("name", ["config.yaml", "env.json", "metrics.jsonl", "result.json"])
@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff\xfe", b"{", b'{"schedule": 3, "seed": true, "started": 5}'])
def test_damaged_files_leave_the_rest(tmp_path, name, content):
    folder = make(tmp_path / "run", passes=3, test_accuracy=0.5)
    (folder / name).write_bytes(content)
    (run,) = list_runs(tmp_path)
    assert run.state == ("damaged" if name == "result.json" else "finished")
    assert run.passes == (0 if name == "metrics.jsonl" else 3)
    assert run.started == (None if name == "env.json" else "2026-01-01T10:00:00")
    assert run.all_passes == (None if name == "config.yaml" else 30)


@pytest.mark.parametrize("target", ["x" * 300, "result.json", "/dev/zero"])
def test_a_link_that_leads_nowhere_is_a_damaged_result(tmp_path, target):
    (make(tmp_path / "run") / "result.json").symlink_to(target)
    assert [run.state for run in list_runs(tmp_path)] == ["damaged"]


def test_where_no_run_is_that_is_said(tmp_path):
    with pytest.raises(InputError, match="no run in it"):
        list_runs(tmp_path)
    with pytest.raises(InputError, match="nowhere: no such folder"):
        list_runs(tmp_path / "nowhere")
