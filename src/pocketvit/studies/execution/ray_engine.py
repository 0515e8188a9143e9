"""Run the cells of a study as tasks of a Ray cluster, each on one GPU, or on one CPU core if there are no GPUs.

A task starts the same process as the local engine and waits for it. If its machine sees the study's folder, the run
folder is made there. Otherwise it is made in a temporary folder and sent back at the end. Either way the same files
result.

If a machine is lost, Ray repeats its tasks on another one: in a shared folder they resume from their checkpoints,
otherwise they start again. Every machine needs PocketViT and the data in the same places.
"""

import io
import shutil
import signal
import socket
import tarfile
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import ray
from ray.exceptions import RayError

from pocketvit.errors import InputError
from pocketvit.runs.folder import with_lasting_data
from pocketvit.studies.definition.jobs import Job
from pocketvit.studies.execution.launch import GRACE_S, failure_of, launch

RETRIES = 5  # how often a cell is retried after its machine was lost
LOOK_S = 0.2
KNOCK_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Brought:
    """What a task returns."""

    failure: str | None  # why there is no result
    log: bytes
    folder: bytes | None  # the run folder as a tar archive; None if it was made in place


class RayEngine:
    """Runs cells on a Ray cluster.

    Args:
        address: of the cluster, as `ray.init` takes it.
        device: the study's `train.device`.
    Raises:
        InputError: no such cluster, or one without a GPU for a study that needs one.
    """

    def __init__(self, address: str, device: str) -> None:
        try:
            if address != "auto":
                _knock(address)
            ray.init(address, log_to_driver=False, configure_logging=False, ignore_reinit_error=True)
        except (OSError, ValueError) as error:
            raise InputError(f"no Ray cluster at {address}; start one with: ray start --head") from error
        self.kind = "CPU" if device == "cpu" or not ray.cluster_resources().get("GPU") else "GPU"
        if device == "cuda" and self.kind == "CPU":
            raise InputError(f"the study sets train.device=cuda, but the Ray cluster at {address} has no GPU")
        self.tasks = {}
        self.task = ray.remote(run_cell).options(
            max_retries=RETRIES, num_cpus=1, num_gpus=1 if self.kind == "GPU" else 0
        )

    @property
    def num_devices(self) -> int:
        """The number of GPUs, or of cores, in the cluster now."""
        return max(1, int(ray.cluster_resources().get(self.kind, 0)))

    @property
    def running(self) -> dict[Job, str]:
        """The running cells."""
        return dict.fromkeys(self.tasks.values(), "ray")

    def free_slot(self) -> list[Job] | None:
        """An empty list if a device is free, else None."""
        return [] if len(self.tasks) < self.num_devices else None

    def start(self, job: Job) -> None:
        """Submit a cell to Ray."""
        token = uuid.uuid4().hex
        job.log.parent.mkdir(parents=True, exist_ok=True)
        job.failure.unlink(missing_ok=True)
        _token_file(job).write_text(token)
        environment = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} if self.kind == "CPU" else {}
        self.tasks[self.task.remote(_with_absolute_paths(job), token, environment)] = job

    def ended(self) -> list[tuple[Job, str | None]]:
        """The cells that ended since the last call, each with its error if it left no result."""
        done = ray.wait(list(self.tasks), num_returns=len(self.tasks), timeout=0)[0] if self.tasks else []
        return [(job := self.tasks.pop(task), _receive(job, task)) for task in done]

    def stop(self) -> None:
        """Let all cells save and end."""
        for task in self.tasks:
            ray.cancel(task)
        if self.tasks:
            ray.wait(list(self.tasks), num_returns=len(self.tasks), timeout=GRACE_S)

    def kill(self) -> None:
        """Kill all cells at once."""
        for task in self.tasks:
            ray.cancel(task, force=True)


def _knock(address: str) -> None:
    """Raise an `OSError` if nothing listens at HOST:PORT; `ray.init` would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    socket.create_connection((host, int(port)), timeout=KNOCK_S).close()


def _with_absolute_paths(job: Job) -> Job:
    """The job with absolute paths, which mean the same in another directory."""
    config = with_lasting_data(job.cell.config)
    return replace(job, cell=replace(job.cell, config=config), out=job.out.absolute())


def _token_file(job: Job) -> Path:
    """The file by which a machine knows that it sees the same folder."""
    return job.log.with_name("token.txt")


def _receive(job: Job, task: ray.ObjectRef) -> str | None:
    """Store what a task returned; returns the error if there is no result."""
    try:
        brought = ray.get(task)
    except RayError as error:
        return f"{type(error).__name__}: {error}".partition("\n")[0]
    job.log.write_bytes(brought.log)
    if brought.folder is not None:
        with tempfile.TemporaryDirectory(prefix=".receiving-", dir=job.out) as scratch:
            with tarfile.open(fileobj=io.BytesIO(brought.folder)) as archive:
                archive.extractall(scratch, filter="data")
            shutil.rmtree(job.folder, ignore_errors=True)  # what an earlier, unfinished run left here
            (Path(scratch) / job.key).rename(job.folder)
    return brought.failure


# ---------------------------------------------------------------- on the other machine


def run_cell(job: Job, token: str, environment: dict[str, str]) -> Brought:
    """Run a cell to its end; this is the Ray task.

    Args:
        token: content of the token file in the study's folder.
        environment: variables for the process.
    """
    try:
        shared = _token_file(job).read_text() == token
    except OSError:
        shared = False
    if shared:
        return _run(job, environment, lambda: None)
    with tempfile.TemporaryDirectory(prefix="pocketvit-") as scratch:
        there = replace(job, out=Path(scratch))
        return _run(there, environment, lambda: _packed(there.folder))


def _run(job: Job, environment: dict[str, str], pack: Callable[[], bytes | None]) -> Brought:
    """Run a cell's process; if the task is canceled, let it save."""
    # Ray cancels with SIGINT, which Python ignores if its parent did, as in a script's background jobs.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = launch(job, environment=environment)
    try:
        while process.poll() is None:
            time.sleep(LOOK_S)
    except KeyboardInterrupt:
        process.terminate()
        process.wait(GRACE_S)
        raise
    finally:
        process.kill()  # does nothing to one that has ended
    failure = failure_of(job, process.returncode)
    return Brought(failure=failure, log=job.log.read_bytes(), folder=None if failure else pack())


def _packed(folder: Path) -> bytes:
    """A finished run folder as a tar archive, without its checkpoints."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.add(folder, folder.name, filter=lambda item: None if Path(item.name).name == "checkpoint" else item)
    return content.getvalue()
