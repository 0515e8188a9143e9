"""One run on many processes; only this module uses process groups.

`torchrun` starts the same command several times and gives each process its rank in the environment. All random numbers
of a run have addresses, so each process knows what happens to every image of a batch, and does its share of it. The
gradients are summed, and each process makes the same update. So N processes compute the same run as one, except for the
order in which numbers are added.

A share consists of mirror pairs: image j of a batch of B is mixed with image B − 1 − j, and both are always on the same
process. In the order of the batch, a share's mirror order pairs the same two images, so mixing needs no communication.

The first process writes the run folder, evaluates and prints; the others are silent.

When a process dies, the others cannot continue: a communication over NCCL would wait forever on the GPU, one over gloo
fails. So each process watches its neighbor (`Watch`), and exits at once with one line when it is gone; torchrun then
restarts all of them, and they resume from the last checkpoint.
"""

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from pocketvit.errors import InputError
from pocketvit.kernels.gradient_memory import SPARE, whole_array

T = TypeVar("T")

MEET_S = 600.0  # how long to wait for the other processes at the start
BEAT_S = 1.0  # seconds between two signs of life
SILENT_S = 60.0  # a neighbor that is silent for so long is dead: its host lost power or its network
LEAVE_S = 10.0  # processes that end normally leave within this many seconds of each other
WATCH_TAG = 1  # tells signs of life from other messages


@dataclass(frozen=True)
class Processes:
    """The processes of a run, as seen by one of them. A single process never waits or communicates."""

    rank: int = 0  # which of them this is
    size: int = 1  # how many there are
    launched: bool = False  # whether a launcher such as torchrun started them

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def share(self, batch_size: int) -> np.ndarray:
        """Positions within a batch that this process trains on, int64, rising: mirror pairs.

        The shares cover the batch and differ by two images at most.

        Raises:
            InputError: a process would get no image.
        """
        pairs = (batch_size + 1) // 2  # the middle image of an odd batch is its own partner
        if pairs < self.size:
            raise InputError(
                f"batch_size={batch_size} is too small for {self.size} processes; use at least {2 * self.size - 1}"
            )
        mine = np.arange(pairs)[self.rank * pairs // self.size : (self.rank + 1) * pairs // self.size]
        return np.union1d(mine, batch_size - 1 - mine)

    def sum_gradients(self, parameters: Iterable[nn.Parameter], values: Sequence[Tensor]) -> list[Tensor]:
        """Replace the gradients by their sums over all processes, in one exchange with some other values.

        The new gradients are views of one flat buffer; if the optimizer's own array holds all of them, it is that, and
        nothing is copied. Nothing waits for the host, so this can be captured in a CUDA graph.

        Args:
            parameters: in the same order on all processes; those without a gradient are skipped.
            values: this process's parts of the loss and of others, of any shapes.
        Returns:
            their sums, of the same shapes, without a graph.
        """
        if self.size == 1:
            return [value.detach() for value in values]
        parameters, sizes = list(parameters), [value.numel() for value in values]
        array = whole_array(parameters)
        if array is not None and sum(sizes) <= SPARE:
            gradients = array.numel() - SPARE
            behind = array[gradients : gradients + sum(sizes)]
            torch.cat([value.detach().to(array.dtype).flatten() for value in values], out=behind)
            dist.all_reduce(array[: gradients + sum(sizes)])
            return [total.view_as(value) for total, value in zip(behind.split(sizes), values, strict=True)]
        with_grad = {parameter: grad for parameter in parameters if (grad := parameter.grad) is not None}
        parts = [*with_grad.values(), *(value.detach() for value in values)]
        flat = torch.cat([part.flatten() for part in parts])
        dist.all_reduce(flat)
        sums = flat.split([part.numel() for part in parts])
        for parameter, grad in zip(with_grad, sums[: len(with_grad)], strict=True):
            parameter.grad = grad.view_as(parameter)
        return [total.view_as(value) for total, value in zip(sums[len(with_grad) :], values, strict=True)]

    def agree(self, signum: int | None) -> int | None:
        """The signal that any process has received, if any, for all."""
        if self.size == 1:
            return signum
        highest = torch.tensor(signum or 0)
        dist.all_reduce(highest, op=dist.ReduceOp.MAX)
        return int(highest) or None

    def from_first(self, make: Callable[[], T]) -> T:
        """Call `make` on the first process, while the others wait for its result.

        Raises:
            InputError: on the first process, as `make` raised it.
            SystemExit: on the others, if `make` raised; the first one says why.
        """
        if self.size == 1:
            return make()
        made: T | None = None
        error: InputError | None = None
        if self.first:
            try:
                made = make()
            except InputError as refused:
                error = refused
        answer: list[Any] = [(error is None, made)]
        dist.broadcast_object_list(answer, src=0, device=torch.device("cpu"))
        if error is not None:
            raise error
        done, made_first = answer[0]
        if not done:
            raise SystemExit(2)
        return made_first

    def error(self, message: str) -> BaseException:
        """The exception for an error that every process finds, so that it is printed once."""
        return InputError(message) if self.first else SystemExit(2)

    def in_turn(self, make: Callable[[], T]) -> T:
        """Call `make` on every process, first on the first one, so that the others can use its caches.

        Raises:
            InputError: as `make` raised it.
        """
        made: list[T] = []
        self.from_first(lambda: made.append(make()))
        return made[0] if made else make()

    def copy_from_first(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite tensors with those of the first process."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)


ALONE = Processes()  # a run in one process


@contextmanager
def join(device: str) -> Iterator[Processes]:
    """Connect to the other processes that torchrun started; without torchrun, a process is alone.

    Each process uses the GPU of its place on the host. Tensors on GPUs are sent by NCCL, others by gloo. CUDA graphs
    with communication must be deleted before this context ends.

    Raises:
        InputError: GPUs are wanted, and the host has fewer than processes.
        TimeoutError: the other processes did not connect.
    """
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys():
        yield ALONE
        return
    processes = Processes(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), launched=True)
    gpu = _take_gpu() if device in ("auto", "cuda") and torch.cuda.is_available() else None
    if processes.size == 1:
        yield processes
        return
    store, rank, size = next(dist.rendezvous("env://", timeout=timedelta(seconds=MEET_S)))
    backend = "gloo" if gpu is None else "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, store=_meet(store, rank, size), rank=rank, world_size=size, device_id=gpu)
    watch = Watch(processes)
    try:
        yield processes
    except RuntimeError:
        watch.give_time()  # communication fails when another process dies; then the watch should report that
        raise
    finally:
        if watch.leave():
            dist.destroy_process_group()


def _meet(store: dist.Store, rank: int, size: int) -> dist.Store:
    """A part of the store that only the current processes use.

    torchrun keeps one store over all its restarts. Entries of dead processes, addresses and NCCL's id, look like those
    of living ones, and a process that uses them waits forever. The counts of restarts do not help, because they
    differ between hosts. So the first process creates a name for this start, and others accept a name only after
    the first process has answered a fresh question under it.

    Raises:
        TimeoutError: there was no answer.
    """
    if rank == 0:
        name = uuid.uuid4().hex
        store.set("start", name)
        for other in range(1, size):
            question = store.get(f"{name}/{other}").decode()
            store.set(f"{name}/{question}", "here")
        return dist.PrefixStore(name, store)
    question, until = uuid.uuid4().hex, time.monotonic() + MEET_S
    while time.monotonic() < until:
        name = store.get("start").decode()
        store.set(f"{name}/{rank}", question)
        if store.check([f"{name}/{question}"]):
            return dist.PrefixStore(name, store)
        time.sleep(0.05)
    raise TimeoutError(f"process {rank} waited {MEET_S:.0f} s for the first process, which did not answer")


class Watch:
    """Exits this process as soon as another one of the run is gone, even while the main thread waits for it.

    In a ring, each process sends the next one a heartbeat every second, from a separate thread, and expects one
    from the process before it. The connection to a dying process breaks at once, so its neighbor exits, then that
    one's neighbor. A process that ends normally says so; the others must then end as well, or they would wait for
    it and exit too. The exit is `os._exit`, because ordinary clean-up would wait for the GPU.
    """

    def __init__(self, processes: Processes) -> None:
        self.rank = processes.rank
        self.before, self.after = (self.rank - 1) % processes.size, (self.rank + 1) % processes.size
        self.launcher = os.getppid()
        self.leaves = False
        self.hurry = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def leave(self) -> bool:
        """Announce that this process ends; returns whether its neighbors end too."""
        self.leaves = True
        self.hurry.set()
        self.thread.join(LEAVE_S)
        return not self.thread.is_alive()

    def give_time(self) -> None:
        """Wait a moment, so that the end of another process can be noticed."""
        self.hurry.set()
        self.thread.join(LEAVE_S / 2)

    def _watch(self) -> None:
        silent = timedelta(seconds=SILENT_S)
        said = heard = False
        while not (said and heard):
            self.hurry.wait(LEAVE_S if heard else BEAT_S)
            leaving = self.leaves
            if os.getppid() != self.launcher:
                self._end("the launcher is gone")
            if heard and not leaving:
                self._end(f"process {self.before} has ended, but this one still waits for it")
            try:
                word, other = torch.tensor([leaving]), torch.tensor([False])
                sending = None if said else dist.isend(word, self.after, tag=WATCH_TAG)
                hearing = None if heard else dist.irecv(other, self.before, tag=WATCH_TAG)
                for work in (hearing, sending):
                    if work is not None:
                        work.wait(silent)
            except RuntimeError:
                self._end("another process of the run is gone")
            said, heard = said or leaving, heard or bool(other)

    def _end(self, why: str) -> NoReturn:
        """Exit this process with one line."""
        with suppress(OSError):
            os.write(2, f"pocketvit: {why}; process {self.rank} exits; start the run again to resume it\n".encode())
        os._exit(1)


def _take_gpu() -> torch.device:
    """The GPU of this process's place on the host."""
    place, gpus = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if place >= gpus:
        raise InputError(
            f"process {place} of this host has no GPU, because there are {gpus}; "
            f"use --nproc-per-node={gpus} or train.device=cpu"
        )
    torch.cuda.set_device(place)
    return torch.device("cuda", place)
