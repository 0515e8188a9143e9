"""Cells in processes of this machine: where they go, whose turn it is, and that none outlives its study."""

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from pocketvit.errors import InputError
from pocketvit.studies import parse_study
from pocketvit.studies.definition.jobs import study_jobs
from pocketvit.studies.execution import local
from pocketvit.studies.execution.gpu_lock import LockingReporter, device_lock, open_lock
from pocketvit.studies.execution.launch import GRACE_S, launch
from pocketvit.studies.execution.local import LocalEngine, cpu_slots, find_slots, gpu_slots


@pytest.fixture
def jobs(tmp_path):
    rows = {"a": {}, "b": {"model.depth": 2}, "c": {"model.depth": 3}, "d": {"model.depth": 5}}
    return study_jobs(parse_study({"recipe": "digits", "rows": rows}, "test"), tmp_path, lambda data: "0" * 32)


@pytest.fixture
def asleep(monkeypatch):
    """Cells that do nothing until they are stopped; gives the environment of each."""
    given = []

    def launch(job, *, exclusive, environment, pass_fds):
        given.append(environment)
        job.log.parent.mkdir(parents=True)
        job.log.write_text("asleep\n")
        return subprocess.Popen(["sleep", "600"], stdin=subprocess.PIPE, start_new_session=True)

    monkeypatch.setattr(local, "launch", launch)
    return given


def test_cells_go_to_the_device_with_the_fewest(jobs, asleep):
    engine = LocalEngine(gpu_slots(["2", "5"]))
    for job in jobs[:3]:
        engine.start(job)
    assert list(engine.running.values()) == ["gpu 2", "gpu 2", "gpu 5"]
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in asleep] == ["2", "5", "2"]
    assert engine.free_slot() == [jobs[1]], "the next one waits for the cell on gpu 5"
    engine.start(jobs[3])
    assert engine.free_slot() is None
    began = time.monotonic()
    engine.stop()
    assert time.monotonic() - began < GRACE_S
    ended = dict(engine.ended())
    assert ended == dict.fromkeys(jobs, "ended by SIGTERM") and not engine.running


def test_one_training_on_each_core(jobs, asleep):
    engine = LocalEngine(cpu_slots(2))
    for job in jobs[:2]:
        engine.start(job)
    assert engine.free_slot() is None and asleep[0]["OMP_NUM_THREADS"] == "1"
    engine.kill()
    assert dict(engine.ended()) == dict.fromkeys(jobs[:2], "ended by SIGKILL (out of memory?)")
    assert engine.free_slot() == []


def test_a_cell_is_out_of_reach_of_ctrl_c_and_keeps_the_studys_folder_locked(jobs, tmp_path):
    with open(tmp_path / "lock", "w") as mine, open(tmp_path / "lock", "w") as another:
        fcntl.flock(mine, fcntl.LOCK_EX)
        cell = launch(jobs[0], pass_fds=[mine.fileno()])
        try:
            assert os.getpgid(cell.pid) == os.getsid(cell.pid) == cell.pid
            mine.close()
            with pytest.raises(BlockingIOError):
                fcntl.flock(another, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            cell.kill()
            cell.wait()
        fcntl.flock(another, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_device_that_is_not_here_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    wrong = [(["0"], "cpu", "leave --gpus out"), (["0"], "auto", "no CUDA"), (None, "cuda", "no CUDA")]
    for gpus, device, words in wrong:
        with pytest.raises(InputError, match=words):
            find_slots(gpus, device)
    assert {slot.capacity for slot in find_slots(None, "cpu")} == {1}


def test_all_gpus_that_may_be_seen_are_used(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [slot.name for slot in find_slots(None, "auto")] == ["gpu 0", "gpu 1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert [slot.name for slot in find_slots(None, "auto")] == ["gpu 4", "gpu 6"]
    assert [slot.name for slot in find_slots(["7"], "auto")] == ["gpu 7"]


def test_all_studies_of_a_machine_share_the_lock_of_a_gpu_whatever_they_call_it(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda: SimpleNamespace(uuid="5fb0-1"))

    def lock_of(gpu: str) -> Path:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpu)
        return device_lock()

    assert {lock_of(gpu) for gpu in ("0", "GPU-5fb0-1", "GPU-5f")} == {tmp_path / "pocketvit-gpu-5fb0-1.lock"}
    parts = [lock_of(gpu).name for gpu in ("MIG-GPU-5fb0/1/0", " MIG-GPU-5fb0/2/0")]
    assert parts == ["pocketvit-MIG-GPU-5fb0-1-0.lock", "pocketvit-MIG-GPU-5fb0-2-0.lock"]


def test_any_user_may_lock_a_device(tmp_path):
    lock, before = tmp_path / "lock", os.umask(0o077)
    try:
        os.close(open_lock(lock))
    finally:
        os.umask(before)
    assert lock.stat().st_mode & 0o777 == 0o644
    lock.chmod(0o444)  # as another user sees it
    os.close(open_lock(lock))
    with pytest.raises(InputError, match="cannot open .*: No such file or directory; remove it, or set TMPDIR"):
        open_lock(tmp_path / "gone" / "lock")


def test_trainings_on_one_device_take_turns(tmp_path):
    console = Console(file=open(os.devnull, "w"))
    first, second = (LockingReporter(console, lambda: tmp_path / "lock") for _ in range(2))
    first.start(10, 0)
    waiting = threading.Thread(target=second.start, args=(10, 0))
    waiting.start()
    waiting.join(timeout=0.3)
    assert waiting.is_alive(), "the second waits"
    first.stop()
    waiting.join(timeout=60)
    assert not waiting.is_alive()
    second.stop()


def test_a_cell_ends_with_the_study_that_started_it(tmp_path):
    """Even if that is killed, and even where the kernel does not see to it."""
    cell = (
        "import sys; sys.platform = {platform!r}\n"
        "from pocketvit.studies.execution.worker import end_with_starter\n"
        "end_with_starter(); print('up', flush=True)\n"
        "import time; time.sleep(600)"
    )
    starter = (
        "import subprocess, sys, time\n"
        "cell = subprocess.Popen([sys.executable, '-c', sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "cell.stdout.readline(); print(cell.pid, flush=True); time.sleep(600)"
    )
    for platform in {sys.platform, "another"}:
        command = [sys.executable, "-c", starter, cell.format(platform=platform)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        pid = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        process.wait()
        until = time.monotonic() + 60
        while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
            assert time.monotonic() < until, "it lives on"
            time.sleep(0.05)
