"""The loop of a run: load, step, log, evaluate and save, pass by pass.

Training is interrupted only between steps: on Ctrl-C or SIGTERM the step finishes, and the run is saved.
"""

import time
from concurrent.futures import ThreadPoolExecutor

import torch

from pocketvit.augment.batch import Chunk
from pocketvit.config import code_of
from pocketvit.device import synchronize
from pocketvit.errors import InputError
from pocketvit.training.checkpoint import CheckpointWriter, list_checkpoints
from pocketvit.training.evaluation import end_pass
from pocketvit.training.resume import resume, save
from pocketvit.training.stop import Stopped, StopRequest
from pocketvit.training.trainer import Trainer


def run_passes(trainer: Trainer) -> None:
    """Train from the run folder's last checkpoint to the end of the schedule.

    Raises:
        InputError: the loss or the weights are not finite, a checkpoint cannot be written, or GPU memory ran out; then
            the message says which batch size would fit.
        Stopped: a signal arrived; the run is saved.
    """
    out_of_memory = False
    try:
        resume(trainer)
        _run_remaining(trainer)
    except torch.cuda.OutOfMemoryError:
        out_of_memory = True  # during handling, the exception's traceback keeps the failed step's memory
    finally:
        trainer.reporter.stop()
    if out_of_memory:
        fits, processes = trainer.largest_batch(), trainer.processes.size
        advice = f"about batch_size={fits} would fit, or the whole batch with train.micro_batch={fits // processes}"
        advice = advice if fits else "not even a small batch fits on this GPU"
        raise InputError(f"out of GPU memory at batch_size={trainer.config.batch_size}; {advice}")


def _run_remaining(trainer: Trainer) -> None:
    """Train from where the trainer stands to the end of the schedule."""
    with (
        ThreadPoolExecutor(max_workers=2) as threads,
        CheckpointWriter(trainer.folder.checkpoints) as checkpoints,
        StopRequest() as stop,
    ):
        schedule = trainer.config.schedule
        began = time.perf_counter()
        chunks = trainer.chunks.remaining(threads, trainer.pass_index, trainer.step_in_pass)
        current = None if trainer.patience.is_over(trainer.pass_index) else next(chunks, None)
        synchronize(trainer.device)
        trainer.train_s += time.perf_counter() - began
        if current is not None:
            trainer.model.train()
            trainer.step.use_side(schedule.side(trainer.pass_index))
            trainer.step.set_chunk(current)  # compiles and captures, not timed
            trainer.reporter.start(schedule.passes * trainer.loader.steps_per_pass, int(trainer.step.step))
        while current is not None:
            if trainer.step.use_side(schedule.side(trainer.pass_index)):
                trainer.step.set_chunk(current)  # as before the first step
            began = time.perf_counter()
            done = run_chunk(trainer, current, stop)
            current = next(chunks, None) if stop.signum is None else None  # loads while the device still trains
            synchronize(trainer.device)
            trainer.train_s += time.perf_counter() - began
            due, signum = _end_chunk(trainer, done), trainer.processes.agree(stop.signum)
            over = trainer.patience.is_over(trainer.pass_index)
            if due or over or signum is not None:
                _check_weights(trainer)
                save(trainer, checkpoints)
            if signum is not None:
                trainer.processes.from_first(checkpoints.wait)
                raise Stopped(signum, trainer.folder.path)
            if over:
                trainer.reporter.note(trainer.patience.note(trainer.pass_index))
                break
        trainer.processes.from_first(checkpoints.wait)


def run_chunk(trainer: Trainer, chunk: Chunk, stop: StopRequest) -> int:
    """Launch the steps of a chunk until a signal arrives; returns their number.

    All processes must stop after the same step. On GPUs they agree on it only once per chunk, because asking in
    every step would prevent the host from running ahead.
    """
    trainer.step.set_chunk(chunk)
    looks = trainer.processes.size == 1 or trainer.device.type != "cuda"
    for done in range(chunk.num_steps):
        if looks and trainer.processes.agree(stop.signum) is not None:
            return done
        trainer.step()
        trainer.reporter.advance(1)
    return chunk.num_steps


def _end_chunk(trainer: Trainer, done: int) -> bool:
    """Count the steps; at the end of a pass, log and evaluate. Returns whether a checkpoint is due."""
    _check_losses(trainer, int(trainer.step.step) - done)
    trainer.step_in_pass += done
    if trainer.step_in_pass < trainer.loader.steps_per_pass:
        return False
    trainer.pass_index, trainer.step_in_pass = trainer.pass_index + 1, 0
    score = trainer.processes.from_first(lambda: end_pass(trainer))
    trainer.patience.look(trainer.pass_index, score, trainer.averaged)
    every, last = trainer.config.train.checkpoint_every_passes, trainer.pass_index == trainer.config.schedule.passes
    return last or (bool(every) and trainer.pass_index % every == 0)


def _check_losses(trainer: Trainer, first: int) -> None:
    """Refuse losses since step `first` that are not finite."""
    bad = ~torch.isfinite(trainer.step.losses[first : int(trainer.step.step)])
    if bad.any():
        step = first + int(bad.nonzero()[0])
        if step:
            raise _not_finite(trainer, "the loss is", step)
        cause = " and ".join(map(str, code_of(trainer.config.model).values())) or "the configuration"
        raise trainer.processes.error(f"the loss is not finite at step 0, before any update; look at {cause}")


def _check_weights(trainer: Trainer) -> None:
    """Refuse weights that are not finite: the loss of a step is that of the weights before it, so it does not tell."""
    if not all(bool(parameter.isfinite().all()) for parameter in trainer.model.parameters()):
        raise _not_finite(trainer, "the weights are", int(trainer.step.step) - 1)


def _not_finite(trainer: Trainer, what: str, step: int) -> BaseException:
    """The exception for a diverged run."""
    any_kept = list_checkpoints(trainer.folder.checkpoints)
    kept = "the last good checkpoint is kept in" if any_kept else "no checkpoint is in"
    return trainer.processes.error(
        f"{what} not finite at step {step}; lower optim.lr={trainer.config.optim.lr} or lengthen the warm-up "
        f"({kept} {trainer.folder.checkpoints})"
    )
