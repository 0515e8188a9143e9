"""A cell's process: what it is started with, where the user's own code is said to be, and where that failed."""

import subprocess
import sys

import pytest

from pocketvit.config import RunConfig, load_config, override, save_config
from pocketvit.studies import parse_study
from pocketvit.studies.definition.jobs import study_jobs
from pocketvit.studies.execution import worker
from pocketvit.studies.execution.gpu_lock import device_lock
from pocketvit.studies.execution.launch import launch
from pocketvit.studies.execution.worker import reason, with_lasting_code

SOURCE = "def square(progress):\n    raise RuntimeError('boom\\nand more')\n"


@pytest.fixture
def cell(tmp_path):
    """The user's file, and the configuration of a cell with a copy of it."""
    file = tmp_path / "mine.py"
    file.write_text(SOURCE)
    config = override(RunConfig(), {"schedule.name": f"{file}:square", "out": tmp_path / "run"})
    save_config(config, tmp_path / "config.yaml")
    return file, load_config(tmp_path / "config.yaml", allow_code=True)


def job_of(row, out):
    """The only job of a study with this row."""
    (job,) = study_jobs(parse_study({"recipe": "digits", "rows": {"mine": row}}, "test"), out, lambda data: "0")
    return job


def started(job, monkeypatch, exclusive=False):
    """What its process trains, the reporter there, and the command that it records."""
    trained = []
    with monkeypatch.context() as caught:
        caught.setattr(subprocess, "Popen", lambda words, **_: words)
        words = launch(job, exclusive=exclusive)
    assert words[:4] == [sys.executable, "-u", "-m", worker.__name__]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words[3:]])
    monkeypatch.setattr(worker, "end_with_starter", lambda: None)
    monkeypatch.setattr(
        "pocketvit.training.train", lambda config, reporter, started: trained.append((config, reporter))
    )
    assert worker.main() == 0
    ((config, reporter),) = trained
    return config, reporter, sys.argv


@pytest.mark.parametrize("exclusive", [False, True])
def test_the_process_reads_the_words_that_it_is_started_with(cell, tmp_path, monkeypatch, exclusive):
    job = job_of({"schedule.name": f"{cell[0]}:square"}, tmp_path / "out")
    config, reporter, _ = started(job, monkeypatch, exclusive)
    assert config == override(job.cell.config, {"out": job.folder}) and config.schedule.name.path == cell[0]
    assert reporter.lock == (device_lock if exclusive else None)


def test_the_recorded_command_names_the_model_that_the_study_gave(tmp_path, monkeypatch):
    """Not the copy that is trained from, which lies among the cells."""
    (tmp_path / "mine.safetensors").write_bytes(b"weights")
    job = job_of({"init_from": str(tmp_path / "mine.safetensors")}, tmp_path / "out")
    config, _, command = started(job, monkeypatch)
    assert command == ["pocketvit", "train", "digits", "--init-from", str(tmp_path / "mine.safetensors")]
    assert config.init_from.path.parent == job.config_file.parent / "weights"


@pytest.mark.parametrize("became", ["kept", "changed", "gone", "unknown"])
def test_code_is_said_to_be_where_it_stays(cell, tmp_path, became):
    """That is the user's file, or else the run folder; the copy among the cells may be tidied away."""
    file, config = cell
    if became == "changed":
        file.write_text(SOURCE + "# another idea\n")
    elif became == "gone":
        file.unlink()
    lasting = with_lasting_code(config, [] if became == "unknown" else [file])
    assert lasting == config and config.schedule.name.path == tmp_path / "code" / "mine.py"
    assert lasting.schedule.name.path == (file if became == "kept" else tmp_path / "run" / "code" / "mine.py")


def test_the_reason_of_a_failure_names_the_line_of_the_users_file(cell):
    file, config = cell
    code = with_lasting_code(config, [file]).schedule.name
    with pytest.raises(RuntimeError) as caught:
        code.load()(0.5)
    assert reason(caught.value, [code]) == f"RuntimeError: boom ({file}, line 2)"
    assert reason(ValueError("ours"), [code]) == "ValueError: ours"
