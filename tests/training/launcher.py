"""Torchrun in tests: start it, hit its workers, wait for its end."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from pocketvit.config import RunConfig, save_config


class Launcher:
    """One torchrun command, and the workers that it started.

    Args:
        config: of the run; saved beside its folder.
        options: of torchrun.
        environment: beside the usual one.
    """

    KNOWS_WORKERS = Path("/proc/self/task").is_dir()

    def __init__(self, config: RunConfig, *options: str, **environment: str) -> None:
        self.folder = config.out
        self.log = config.out.with_suffix(".log")
        saved = config.out.with_suffix(".yaml")
        save_config(config, saved)
        command = [sys.executable, "-m", "torch.distributed.run", "--monitor-interval=0.1", *options]
        command += ["-m", "pocketvit", "train", "--config", str(saved), "--out", str(config.out)]
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"} | environment
            )

    def __enter__(self) -> "Launcher":
        return self

    def __exit__(self, *_: object) -> None:
        if self.running():
            self.lose()

    def running(self) -> bool:
        return self.process.poll() is None

    def workers(self) -> list[int]:
        """Process ids of the workers that are alive, by rank within the host."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def kill_worker(self, place: int) -> None:
        os.kill(self.workers()[place], signal.SIGKILL)

    def wait_for_new_workers(self, old: list[int]) -> float:
        """Wait until other workers than the old ones run; how many seconds that took."""
        began = time.monotonic()
        while not self.workers() or set(self.workers()) & set(old):
            assert self.running() and time.monotonic() < began + 60, self.log.read_text()
            time.sleep(0.02)
        return time.monotonic() - began

    def lose(self) -> None:
        """Kill launcher and workers, as a power cut does."""
        for pid in [self.process.pid, *self.workers()]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def finish(self, code: int = 0) -> None:
        """Wait for the end of the command."""
        try:
            assert self.process.wait(120) == code, self.log.read_text()
        except subprocess.TimeoutExpired:
            pytest.fail(f"not done in time:\n{self.log.read_text()}")
