"""Run a queue of commands on the GPUs of a host, in parallel if they fit, for as long as there is time.

    python -m benchmarks.gpu_queue JOBS.yaml OUT [--minutes 25]

JOBS.yaml maps names to jobs, in order of importance:

    tests:   {command: make test-gpu PYTHON=python3, gpus: 2, seconds: 160}
    speed:   {command: "python -m benchmarks.speed --out $OUT", gpus: 1, seconds: 300, after: [tests]}
    rows:    {command: "python -m pocketvit study benchmarks/kernels.yaml --time-limit ${LEFT}s", gpus: 2, seconds: 150}

A job sees only its GPUs (CUDA_VISIBLE_DEVICES), its own folder ($OUT), and the seconds left ($LEFT); its output is in
OUT/NAME/log. No job is started that would not end in time. A job that waits for GPUs is not overtaken by later ones,
unless it waits for another job (`after`). The file is read repeatedly, so jobs can be added while others run; a job is
never started twice.
"""

import argparse
import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

TICK_S = 0.2


@dataclass
class Running:
    """A job that has been started."""

    process: subprocess.Popen
    gpus: set[str]
    began: float


class Queue:
    """The jobs of a file on some GPUs.

    Args:
        jobs: the file.
        out: where each job gets a folder.
        gpus: named as in CUDA_VISIBLE_DEVICES.
        seconds: time limit.
    """

    def __init__(self, jobs: Path, out: Path, gpus: list[str], seconds: float) -> None:
        self.jobs, self.out, self.free = jobs, out, set(gpus)
        self.until = time.monotonic() + seconds
        self.running: dict[str, Running] = {}
        self.ended: dict[str, int] = {}
        """Exit codes."""

    def run(self) -> None:
        """Run until no job runs and none can be started."""
        while self.step():
            time.sleep(TICK_S)

    def step(self) -> bool:
        """Collect the jobs that ended and start those that can be; returns whether any runs."""
        for name, job in list(self.running.items()):
            if job.process.poll() is not None:
                self.free |= job.gpus
                self.ended[name] = job.process.returncode
                print(f"{name}: exit code {job.process.returncode}, {time.monotonic() - job.began:.0f} s", flush=True)
                del self.running[name]
        for name, job in self.waiting():
            if job["gpus"] > len(self.free):
                break
            self.start(name, job)
        return bool(self.running)

    def waiting(self) -> list[tuple[str, Mapping[str, Any]]]:
        """The jobs that other jobs and the time allow to be started."""
        left = self.until - time.monotonic()
        jobs = yaml.safe_load(self.jobs.read_text(encoding="utf-8")) or {}
        return [
            (name, job)
            for name, job in jobs.items()
            if name not in self.ended and name not in self.running
            if job["seconds"] <= left and all(other in self.ended for other in job.get("after", []))
        ]

    def start(self, name: str, job: Mapping[str, Any]) -> None:
        """Start a job on the first free GPUs."""
        gpus = set(sorted(self.free)[: job["gpus"]])
        folder = self.out / name
        folder.mkdir(parents=True, exist_ok=True)
        own = {"CUDA_VISIBLE_DEVICES": ",".join(sorted(gpus)), "OUT": str(folder.absolute()), "PYTHONUNBUFFERED": "1"}
        own["LEFT"] = str(int(self.until - time.monotonic()))
        with open(folder / "log", "wb") as log:
            process = subprocess.Popen(
                job["command"], shell=True, env=os.environ | own, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        self.free -= gpus
        self.running[name] = Running(process, gpus, time.monotonic())


def visible_gpus() -> list[str]:
    """The GPUs that this process may use."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else list(map(str, range(torch.cuda.device_count())))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=25.0)
    options = parser.parse_args()
    queue = Queue(options.jobs, options.out, visible_gpus(), 60 * options.minutes)
    queue.run()
    print(f"{len(queue.ended)} jobs done, {len(queue.waiting())} more could be started")


if __name__ == "__main__":
    main()
