"""Torchrun in tests: start it, hit its workers, wait for its end."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from worker_processes import start

from pocketvit.config import RunConfig, save_config


def torchrun(log: Path, environment: dict[str, str], arguments: list[str]) -> None:
    """Do in this process what the command does, writing into a log; the workers it starts are commands of their own."""
    from torch.distributed.run import main

    os.environ.update(environment)
    with open(log, "a") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    main(arguments)


class Launcher:
    """One torchrun, and the workers that it started.

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
        arguments = ["--monitor-interval=0.1", *options, "-m", "pocketvit", "train"]
        arguments += ["--config", str(saved), "--out", str(config.out)]
        self.process = start(torchrun, self.log, environment, arguments)

    def __enter__(self) -> "Launcher":
        return self

    def __exit__(self, *_: object) -> None:
        if self.running():
            self.lose()

    def running(self) -> bool:
        return self.process.is_alive()

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
            assert self.running() and time.monotonic() < began + 300, self.log.read_text()
            time.sleep(0.02)
        return time.monotonic() - began

    def lose(self) -> None:
        """Kill launcher and workers, as a power cut does."""
        for pid in [self.process.pid, *self.workers()]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.join()

    def ended(self, limit_s: float) -> int:
        """Wait for the end; the exit code."""
        self.process.join(limit_s)
        assert not self.running(), f"not done in time:\n{self.log.read_text()}"
        return self.process.exitcode

    def finish(self, code: int = 0) -> None:
        """Wait for the end, which has to have this exit code."""
        assert self.ended(600) == code, self.log.read_text()
