"""Save the state of a run in a checkpoint, and resume from one. How checkpoints survive a crash is in `checkpoint`."""

import time

from pocketvit.config.training import Kernels
from pocketvit.device import compute_dtype
from pocketvit.errors import InputError
from pocketvit.training.checkpoint import CheckpointWriter, Progress, load_checkpoint
from pocketvit.training.evaluation import pass_line
from pocketvit.training.extend import lengthened
from pocketvit.training.trainer import Trainer


def save(trainer: Trainer, checkpoints: CheckpointWriter) -> None:
    """Write a checkpoint of the current state.

    Raises:
        InputError: the checkpoint before it could not be written.
    """
    place, best = (trainer.pass_index, trainer.step_in_pass), (trainer.patience.pass_index, trainer.patience.score)
    progress = Progress(*place, trainer.train_s, trainer.kernels, *best, time.perf_counter() - trainer.started)
    state = trainer.step.state() | trainer.patience.state()
    trainer.processes.from_first(lambda: checkpoints.save(int(trainer.step.step), state, progress))


def resume(trainer: Trainer) -> None:
    """Resume from the folder's newest intact checkpoint, or start if there is none."""
    progress = trainer.processes.from_first(lambda: _restore(trainer))
    trainer.processes.copy_from_first(list(trainer.step.state().values()))
    trainer.pass_index, trainer.step_in_pass = progress.pass_index, progress.step_in_pass
    trainer.train_s = progress.train_s
    trainer.started -= max(progress.total_s, progress.train_s)
    trainer.patience.pass_index, trainer.patience.score = progress.best_pass, progress.best_accuracy
    keep_kernels(trainer, progress.kernels)
    lost = trainer.processes.from_first(lambda: trainer.folder.cut_metrics(trainer.pass_index))
    if trainer.pass_index in lost and trainer.step_in_pass == 0:  # the model is still that after the pass
        trainer.processes.from_first(lambda: trainer.folder.append_metrics(pass_line(trainer)))
        lost.remove(trainer.pass_index)
    if lost:
        what = f"{len(lost)} of {trainer.pass_index} lines lost or damaged, first that of pass {lost[0]}"
        trainer.reporter.note(f"{trainer.folder.metrics}: {what}; continuing without them")


def _restore(trainer: Trainer) -> Progress:
    """Read the newest intact checkpoint; returns the run's progress.

    Raises:
        InputError: it cannot be read, or is of another run.
    """
    num_bytes = sum(tensor.nbytes for tensor in trainer.step.state().values())
    found, said = load_checkpoint(trainer.folder.checkpoints, 2**24 + 2 * num_bytes)
    for line in said:
        trainer.reporter.note(line)
    if found is None:
        return Progress(pass_index=0, step_in_pass=0, train_s=0.0, kernels=trainer.kernels)
    state, progress = found
    try:
        state = lengthened(trainer.patience.take(state), trainer.config.schedule, trainer.loader.steps_per_pass)
        trainer.step.load_state(state)
        step, place = int(trainer.step.step), (progress.pass_index, progress.step_in_pass)
        if divmod(step, trainer.loader.steps_per_pass) != place or step > len(trainer.lr):
            raise InputError(f"step {step} is not step {place[1]} of pass {place[0]}")
    except InputError as error:
        why = f"the newest checkpoint is not of this run: {error}; choose another --out"
        raise InputError(f"{trainer.folder.checkpoints}: {why}") from error
    trainer.reporter.note(f"resuming from step {int(trainer.step.step)} (pass {progress.pass_index + 1})")
    return progress


def keep_kernels(trainer: Trainer, began_with: Kernels) -> None:
    """Keep the kernels that the run began with, if `auto` chose them and they are still supported."""
    dtype = compute_dtype(trainer.config.train.precision, trainer.device)
    kinds = began_with, trainer.kernels
    if trainer.config.train.kernels != "auto" or began_with == trainer.kernels or "reference" in kinds:
        return
    trainer.model.use_kernels(began_with)
    num_tokens = trainer.objective.stacks(trainer.model)[0].num_tokens
    if trainer.model.block_kernels(trainer.device, dtype, num_tokens).name != began_with:
        trainer.model.use_kernels(trainer.kernels)
    else:
        trainer.reporter.note(f"the blocks keep the {began_with} kernels that the run began with")
        trainer.kernels = began_with
