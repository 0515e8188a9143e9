"""A cancelled Ray task saves, wherever Ray was started."""

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from pocketvit.studies import parse_study
from pocketvit.studies.definition.jobs import study_jobs


def test_a_task_is_cancelled_also_where_ctrl_c_was_ignored_when_ray_was_started(tmp_path: Path, monkeypatch):
    engine = pytest.importorskip("pocketvit.studies.execution.ray", exc_type=ImportError)
    study = parse_study({"recipe": "digits", "rows": {"a": {}, "b": {"model.depth": 2}}}, "test")
    job = study_jobs(study, tmp_path, lambda data: "0" * 32)[0]
    cell = subprocess.Popen(["sleep", "60"])
    monkeypatch.setattr(engine, "launch", lambda job, environment: cell)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does to a script's background jobs
    try:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            engine._run(job, {}, lambda: None)
    finally:
        signal.signal(signal.SIGINT, before)
    assert cell.returncode == -signal.SIGTERM
