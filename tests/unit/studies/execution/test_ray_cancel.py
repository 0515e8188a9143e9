"""A cancelled Ray task saves, wherever Ray was started."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from pocketvit.studies import parse_study
from pocketvit.studies.definition.jobs import study_jobs

pytestmark = pytest.mark.long


def test_a_task_is_cancelled_also_where_ctrl_c_was_ignored_when_ray_was_started(tmp_path: Path, monkeypatch):
    from pocketvit.studies.execution import ray_engine as engine

    study = parse_study({"recipe": "digits", "rows": {"a": {}, "b": {"model.depth": 2}}}, "test")
    job = study_jobs(study, tmp_path, lambda data: "0" * 32)[0]
    cell = subprocess.Popen(["sleep", "600"])

    def cancel() -> None:
        del cell.poll
        os.kill(os.getpid(), signal.SIGINT)

    cell.poll = cancel  # as soon as the task looks whether the cell has ended
    monkeypatch.setattr(engine, "launch", lambda job, environment: cell)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does to a script's background jobs
    try:
        with pytest.raises(KeyboardInterrupt):
            engine._run(job, {}, lambda: None)
    finally:
        signal.signal(signal.SIGINT, before)
    assert cell.returncode == -signal.SIGTERM
