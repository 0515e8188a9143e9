"""Functions that tests run in processes of their own, and their launcher.

Processes are forked from a server that has imported what they need, so that starting one takes a moment only.
"""

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from objective_cases import convert

from pocketvit.config import RunConfig
from pocketvit.optim.build import named_parameters
from pocketvit.training import Stopped, distributed, run, train
from pocketvit.training.distributed import join
from pocketvit.training.progress import SilentReporter
from pocketvit.training.run import prepare
from pocketvit.training.step import TrainStep

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["pocketvit.training", "torch.distributed.run", "pocketvit.report.page", "yaml"])


def start(function: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """Call a function of this module in a new process."""
    process = CONTEXT.Process(target=function, args=arguments)
    process.start()
    return process


def start_members(size: int, folder: Path, function: Callable[..., Any], *arguments: Any) -> list[BaseProcess]:
    """Call a function in `size` processes of one run, which write what it returns into the folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        start(member, rank, size, port, folder / f"answer-{rank}-of-{size}.pt", function, *arguments)
        for rank in range(size)
    ]


def together(size: int, folder: Path, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Call a function in `size` processes of one run; what each of them returned, by rank."""
    for process in start_members(size, folder, function, *arguments):
        process.join(300)
        assert process.exitcode == 0, "see the traceback above"
    return [torch.load(folder / f"answer-{rank}-of-{size}.pt", weights_only=False) for rank in range(size)]


def member(rank: int, size: int, port: int, answer: Path, function: Callable[..., Any], *arguments: Any) -> None:
    """One process of a run, told of its place as torchrun does it."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    torch.save(function(*arguments), answer)


def gradients(config: RunConfig, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses (S,) and gradients (S, parameters) of each batch of the first pass at the initial weights."""
    with join("cpu") as processes:
        trainer = prepare(config, processes, SilentReporter())
        trainer.model.to(dtype)
        convert(trainer.objective, dtype)
        trainer.mean, trainer.std = (tensor.to(dtype) for tensor in (trainer.mean, trainer.std))
        trainer.step = trainer._make_step(config, processes)
        chunk = trainer.chunks.load(0, 0, trainer.loader.steps_per_pass)
        trainer.step.set_chunk(chunk)
        losses, rows = [], []
        for _ in range(chunk.num_steps):
            losses += trainer.step.backward()
            named = [*named_parameters(trainer.model, trainer.objective.layers)]
            rows.append(torch.cat([parameter.grad.flatten() for _, parameter in named]))
            for _, parameter in named:
                parameter.grad = None
            trainer.step.position += 1
        return torch.stack(losses), torch.stack(rows)


def stopped_at(config: RunConfig, rank: int, step: int) -> tuple[int, str]:
    """Train until one process gets SIGTERM during a step; the signal and the message that came out of this one."""
    ordinary = TrainStep.__call__

    def with_signal(self: TrainStep) -> None:
        if int(os.environ["RANK"]) == rank and int(self.step) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        ordinary(self)

    TrainStep.__call__ = with_signal
    try:
        train(config)
    except Stopped as stopped:
        return stopped.signum, str(stopped)
    raise AssertionError("not stopped")


def left_by_the_first() -> None:
    """The first process leaves at once, the second waits as it would for a GPU: without looking at connections."""
    distributed.LEAVE_S = 0.5
    with join("cpu") as processes:
        if not processes.first:
            time.sleep(600)


def decided_passes(config: RunConfig, seconds: tuple[float, ...]) -> int:
    """The passes that a time budget allows this process, whose steps take so long by its clock."""
    now, ordinary = [0.0], TrainStep.__call__

    def ticking(self: TrainStep) -> None:
        now[0] += seconds[int(os.environ["RANK"])]
        ordinary(self)

    TrainStep.__call__ = ticking
    run.with_fitting_passes = partial(run.with_fitting_passes, clock=lambda: now[0])
    with join("cpu") as processes:
        return prepare(config, processes, SilentReporter()).config.schedule.passes


def outcome(config: RunConfig) -> str:
    """How training ends: the kind of the exception and its message."""
    try:
        train(config)
    except (Exception, SystemExit) as error:
        return f"{type(error).__name__}: {error}"
    return "done"
