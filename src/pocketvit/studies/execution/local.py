"""Run a study on this machine: one run at a time trains on each GPU, or one on each CPU core.

On a GPU, a second process imports, compiles and captures while the first one trains, and gets its turn by a lock
(`gpu_lock.py`). All processes are started and watched from one thread.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from pocketvit.errors import InputError
from pocketvit.studies.definition.jobs import Job
from pocketvit.studies.execution.launch import GRACE_S, failure_of, launch

PREPARING = 1
"""Processes that get ready on a GPU while another one trains there. Each takes some GPU memory."""
MOST_COMPILE_THREADS = 8


@dataclass
class Slot:
    """A device and the cells on it, one of which trains."""

    name: str
    environment: dict[str, str]
    capacity: int  # processes at once
    exclusive: bool = False  # whether they train one at a time, across all studies on the machine
    running: dict[subprocess.Popen, Job] = field(default_factory=dict)


def cpu_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_slots(count: int) -> list[Slot]:
    """One single-threaded run on each core: many small runs side by side waste less than one on all cores."""
    alone = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return [Slot(name=f"core {n}", environment=alone, capacity=1) for n in range(count)]


def gpu_slots(gpus: Sequence[str]) -> list[Slot]:
    """One run at a time on each GPU, named as in CUDA_VISIBLE_DEVICES, while the next one gets ready."""
    threads = max(1, min(MOST_COMPILE_THREADS, cpu_cores() // (len(gpus) * (1 + PREPARING))))
    return [
        Slot(
            name=f"gpu {gpu}",
            environment={"CUDA_VISIBLE_DEVICES": gpu, "TORCHINDUCTOR_COMPILE_THREADS": str(threads)},
            capacity=1 + PREPARING,
            exclusive=True,
        )
        for gpu in gpus
    ]


def find_slots(gpus: Sequence[str] | None, device: str) -> list[Slot]:
    """The devices to use.

    Args:
        gpus: as given by the user; by default all.
        device: the study's `train.device`.
    Raises:
        InputError: the machine lacks the study's device, or GPUs are given for a study that needs none.
    """
    if gpus and device not in ("auto", "cuda"):
        raise InputError(f"--gpus {','.join(gpus)}: the study sets train.device={device}; leave --gpus out")
    if device == "cpu":
        return cpu_slots(cpu_cores())
    import torch

    if torch.cuda.is_available() and device != "mps":  # the only query, so that this process takes no GPU memory
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
        return gpu_slots(gpus or visible.split(","))
    if gpus or device == "cuda":
        raise InputError("this machine has no CUDA device; leave --gpus out, or set train.device: cpu in the study")
    if torch.backends.mps.is_available():
        return [Slot(name="mps", environment={}, capacity=1 + PREPARING, exclusive=True)]
    return cpu_slots(cpu_cores())


class LocalEngine:
    """Runs cells in processes on this machine.

    Args:
        pass_fds: open files that the processes inherit.
    """

    def __init__(self, slots: Sequence[Slot], pass_fds: Sequence[int] = ()) -> None:
        self.slots, self.pass_fds = slots, pass_fds
        self.num_devices = len(slots)

    @property
    def running(self) -> dict[Job, str]:
        """The running cells, each with its device."""
        return {job: slot.name for slot in self.slots for job in slot.running.values()}

    def free_slot(self) -> list[Job] | None:
        """The cells that the next one would wait for on its device; None if no device is free."""
        slot = self._next_slot()
        return list(slot.running.values()) if slot else None

    def _next_slot(self) -> Slot | None:
        free = [slot for slot in self.slots if len(slot.running) < slot.capacity]
        return min(free, key=lambda slot: len(slot.running), default=None)

    def start(self, job: Job) -> None:
        """Start a cell on the device with the fewest cells."""
        slot = self._next_slot()
        assert slot is not None  # `free_slot` has said so
        process = launch(job, exclusive=slot.exclusive, environment=slot.environment, pass_fds=self.pass_fds)
        slot.running[process] = job

    def ended(self) -> list[tuple[Job, str | None]]:
        """The cells that ended since the last call, each with its error if it left no result."""
        found = []
        for slot in self.slots:
            for process in [process for process in slot.running if process.poll() is not None]:
                if process.stdin is not None:
                    process.stdin.close()
                job = slot.running.pop(process)
                found.append((job, failure_of(job, process.returncode)))
        return found

    def stop(self) -> None:
        """Let all cells save and end; kill those that take too long."""
        for process in self._processes():
            process.terminate()
        until = time.monotonic() + GRACE_S
        for process in self._processes():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))
        self.kill()

    def kill(self) -> None:
        """Kill all cells at once, with their compiler processes."""
        for process in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _processes(self) -> list[subprocess.Popen]:
        return [process for slot in self.slots for process in slot.running]
