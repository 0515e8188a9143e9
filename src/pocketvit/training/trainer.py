"""The state of a run, and its passes.

Training is interrupted only between steps: on Ctrl-C or SIGTERM the step finishes, and the run is saved.
"""

import copy
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from math import isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pocketvit.augment.batch import Chunk
from pocketvit.config import RunConfig, code_of, override
from pocketvit.config.training import Kernels
from pocketvit.data import Splits, channel_stats
from pocketvit.device import fitting_threads, largest_batch, synchronize, uses_bf16
from pocketvit.errors import InputError
from pocketvit.inference.logits import accuracy, mean_loss, predict_logits
from pocketvit.inference.trained_model import TrainedModel
from pocketvit.loading.balance import balance_note
from pocketvit.loading.chunks import Chunks
from pocketvit.model import ViT
from pocketvit.optim.schedule import lr_table
from pocketvit.randomness import Stream, permutation
from pocketvit.runs.average_precision import class_precisions, mean_precision
from pocketvit.runs.folder import RunFolder
from pocketvit.training.checkpoint import CheckpointWriter, Progress, list_checkpoints, load_checkpoint
from pocketvit.training.compiling import kernels_compiled
from pocketvit.training.distributed import ALONE, Processes
from pocketvit.training.extend import lengthened
from pocketvit.training.patience import Patience
from pocketvit.training.probe import folded, standardize
from pocketvit.training.progress import Reporter
from pocketvit.training.setup import (
    PATCH_INITS,
    choose_kernels,
    freeze,
    make_loader,
    make_model,
    make_objective,
    make_step,
    stacks_by_side,
)
from pocketvit.training.start import Start, start_from
from pocketvit.training.step import TrainStep
from pocketvit.training.stop import Stopped, StopRequest

STANDARDIZING_IMAGES = 5_000  # training images from which a linear probe's features are standardized


class Trainer:
    """The state of a run and the passes over it.

    Args:
        processes: that share the work. All of them call the same methods in the same order.
    """

    folder: RunFolder

    def __init__(
        self, config: RunConfig, splits: Splits, device: torch.device, reporter: Reporter, processes: Processes = ALONE
    ) -> None:
        self.config, self.splits, self.device, self.reporter = config, splits, device, reporter
        self.processes = processes
        self.loader = make_loader(config, splits.train, device, processes)
        for note in (self.loader.images.note, balance_note(config.data.balance, splits.train.labels)):
            if note is not None:
                reporter.note(note)
        self.model = make_model(config, splits, device)
        self.start = Start()
        if config.init_from is not None:
            self.start = start_from(self.model, splits.class_names, config.init_from)
            for note in self.start.notes:
                reporter.note(f"init_from: {note}")
        freeze(self.model, config.train.freeze)
        self.objective = make_objective(config, self.model, splits)
        self.chunks = Chunks(config, self.loader, self.objective.num_draws)
        by_side = stacks_by_side(config, self.model, self.objective)
        first = [stacks[0] for stacks in by_side]
        self.kernels: Kernels = choose_kernels(self.model, first, config.train, device, processes, reporter)
        """The kernels of the blocks."""
        self.fused = device.type == "cuda" and self.kernels != "reference"
        """Whether our kernels run the blocks and the update."""
        sizes = len(self.loader.share), config.optim.label_smoothing, config.train.micro_batch
        with kernels_compiled(self.model, sum(map(tuple, by_side), ()), *sizes) if self.fused else nullcontext():
            self._set_up()
        self.pass_index, self.step_in_pass, self.train_s = 0, 0, 0.0
        self.patience = Patience(config.train)

    def _set_up(self) -> None:
        """Build the rest up to the first step, while kernels are compiled."""
        mean, std = channel_stats(self.splits.train.images)
        if not std.all():
            same = " and ".join(np.array(("red", "green", "blue"))[std == 0])
            self.reporter.note(f"{same}: the same value in every pixel of the training images, so not scaled")
        self.stats = mean, np.where(std == 0, 1, std)
        self.mean, self.std = (torch.tensor(s, dtype=torch.float32, device=self.device) for s in self.stats)
        taken = "tokens.patches.proj.weight" in self.start.taken
        start = PATCH_INITS["random" if taken else self.config.model.patch_init]
        self.filters: Tensor | None = start(self.model, self.loader, self.mean, self.std)
        """The initial whitening filters of the patch embedding, (F, C, p, p)."""
        if self.config.train.freeze != "none":
            sample = permutation(self.config.seed, Stream.SAMPLE, 0, len(self.splits.train))[:STANDARDIZING_IMAGES]
            standardize(self.model, self.splits.train.images[np.sort(sample)], self.mean, self.std)
            self.processes.copy_from_first(list(self.model.pool.buffers()))
        rates = {"peak": self.config.optim.lr, "steps_per_pass": self.loader.steps_per_pass}
        self.lr = lr_table(self.config.schedule, **rates)  # learning rate of every step of the run, (total steps,)
        self.step = self._make_step(self.config, self.processes)
        if self.device.type == "cuda":  # compiles the augmentation's kernel
            self.loader.sample(np.arange(min(16, len(self.splits.train))), pass_index=0)

    def _make_step(self, config: RunConfig, processes: Processes) -> TrainStep:
        return make_step(
            config,
            self.model,
            self.objective,
            stats=(self.mean, self.std),
            factors=self.lr / config.optim.lr,
            processes=processes,
            fused=self.fused,
            in_place=self.kernels == "persistent" and config.train.micro_batch is None,
        )

    def fitting_threads(self) -> AbstractContextManager[None]:
        """Inside, a CPU uses as many threads as suit the model; see `pocketvit.device`."""
        images = min(len(self.loader.share), self.config.train.micro_batch or len(self.loader.share))
        return fitting_threads(self.device, images * self.model.numbers_per_image)

    def resume(self) -> None:
        """Resume from the folder's newest intact checkpoint, or start if there is none."""
        progress = self.processes.from_first(self._restore)
        self.processes.copy_from_first(list(self.step.state().values()))
        self.pass_index, self.step_in_pass = progress.pass_index, progress.step_in_pass
        self.train_s = progress.train_s
        self.patience.pass_index, self.patience.score = progress.best_pass, progress.best_accuracy
        self._keep_kernels(progress.kernels)
        lost = self.processes.from_first(lambda: self.folder.cut_metrics(self.pass_index))
        if self.pass_index in lost and self.step_in_pass == 0:  # the model is still that after the pass
            self.processes.from_first(lambda: self.folder.append_metrics(self.pass_line()))
            lost.remove(self.pass_index)
        if lost:
            what = f"{len(lost)} of {self.pass_index} lines lost or damaged, first that of pass {lost[0]}"
            self.reporter.note(f"{self.folder.metrics}: {what}; continuing without them")

    def _keep_kernels(self, began_with: Kernels) -> None:
        """Keep the kernels that the run began with, if `auto` chose them and they are still supported."""
        dtype = torch.bfloat16 if uses_bf16(self.config.train.precision, self.device) else torch.float32
        kinds = began_with, self.kernels
        if self.config.train.kernels != "auto" or began_with == self.kernels or "reference" in kinds:
            return
        self.model.use_kernels(began_with)
        num_tokens = self.objective.stacks(self.model)[0].num_tokens
        if self.model.block_kernels(self.device, dtype, num_tokens).name != began_with:
            self.model.use_kernels(self.kernels)
        else:
            self.reporter.note(f"the blocks keep the {began_with} kernels that the run began with")
            self.kernels = began_with

    def _restore(self) -> Progress:
        """Read the newest intact checkpoint; returns the run's progress.

        Raises:
            InputError: it cannot be read, or is of another run.
        """
        num_bytes = sum(tensor.nbytes for tensor in self.step.state().values())
        found, said = load_checkpoint(self.folder.checkpoints, 2**24 + 2 * num_bytes)
        for line in said:
            self.reporter.note(line)
        if found is None:
            return Progress(pass_index=0, step_in_pass=0, train_s=0.0, kernels=self.kernels)
        state, progress = found
        try:
            state = lengthened(self.patience.take(state), self.config.schedule, self.loader.steps_per_pass)
            self.step.load_state(state)
            step, place = int(self.step.step), (progress.pass_index, progress.step_in_pass)
            if divmod(step, self.loader.steps_per_pass) != place or step > len(self.lr):
                raise InputError(f"step {step} is not step {place[1]} of pass {place[0]}")
        except InputError as error:
            why = f"the newest checkpoint is not of this run: {error}; choose another --out"
            raise InputError(f"{self.folder.checkpoints}: {why}") from error
        self.reporter.note(f"resuming from step {int(self.step.step)} (pass {progress.pass_index + 1})")
        return progress

    def save(self, checkpoints: CheckpointWriter) -> None:
        """Write a checkpoint of the current state.

        Raises:
            InputError: the weights are not finite, or the checkpoint before it could not be written.
        """
        if not all(bool(parameter.isfinite().all()) for parameter in self.model.parameters()):
            raise self._not_finite("the weights are", int(self.step.step) - 1)
        place, best = (self.pass_index, self.step_in_pass), (self.patience.pass_index, self.patience.score)
        progress, state = Progress(*place, self.train_s, self.kernels, *best), self.step.state() | self.patience.state()
        self.processes.from_first(lambda: checkpoints.save(int(self.step.step), state, progress))

    def run(self) -> None:
        """Train to the end of the schedule.

        Raises:
            InputError: the loss is not finite, or a checkpoint cannot be written.
            Stopped: a signal arrived.
        """
        with (
            ThreadPoolExecutor(max_workers=2) as threads,
            CheckpointWriter(self.folder.checkpoints) as checkpoints,
            StopRequest() as stop,
        ):
            began = time.perf_counter()
            chunks = self.chunks.remaining(threads, self.pass_index, self.step_in_pass)
            current = None if self.patience.is_over(self.pass_index) else next(chunks, None)
            synchronize(self.device)
            self.train_s += time.perf_counter() - began
            if current is not None:
                self.model.train()
                self.step.use_side(self.config.schedule.side(self.pass_index))
                self.step.set_chunk(current)  # compiles and captures, not timed
                self.reporter.start(self.config.schedule.passes * self.loader.steps_per_pass, int(self.step.step))
            while current is not None:
                if self.step.use_side(self.config.schedule.side(self.pass_index)):
                    self.step.set_chunk(current)  # as before the first step
                began = time.perf_counter()
                done = self.run_chunk(current, stop)
                current = next(chunks, None) if stop.signum is None else None  # loads while the device still trains
                synchronize(self.device)
                self.train_s += time.perf_counter() - began
                due, signum = self.end_chunk(done), self.processes.agree(stop.signum)
                over = self.patience.is_over(self.pass_index)
                if due or over or signum is not None:
                    self.save(checkpoints)
                if signum is not None:
                    self.processes.from_first(checkpoints.wait)
                    raise Stopped(signum, self.folder.path)
                if over:
                    self.reporter.note(self.patience.note(self.pass_index))
                    break
            self.processes.from_first(checkpoints.wait)

    def run_chunk(self, chunk: Chunk, stop: StopRequest) -> int:
        """Launch the steps of a chunk until a signal arrives; returns their number.

        All processes must stop after the same step. On GPUs they agree on it only once per chunk, because asking in
        every step would prevent the host from running ahead.
        """
        self.step.set_chunk(chunk)
        looks = self.processes.size == 1 or self.device.type != "cuda"
        for done in range(chunk.num_steps):
            if looks and self.processes.agree(stop.signum) is not None:
                return done
            self.step()
            self.reporter.advance(1)
        return chunk.num_steps

    def end_chunk(self, done: int) -> bool:
        """Count the steps; at the end of a pass, log and evaluate. Returns whether a checkpoint is due."""
        self._check_finite(int(self.step.step) - done)
        self.step_in_pass += done
        if self.step_in_pass < self.loader.steps_per_pass:
            return False
        self.pass_index, self.step_in_pass = self.pass_index + 1, 0
        self.patience.look(self.pass_index, self.processes.from_first(self.end_pass), self.averaged)
        every, last = self.config.train.checkpoint_every_passes, self.pass_index == self.config.schedule.passes
        return last or (bool(every) and self.pass_index % every == 0)

    def _check_finite(self, first: int) -> None:
        losses = self.step.losses[first : int(self.step.step)]
        bad = ~torch.isfinite(losses)
        if bad.any():
            step = first + int(bad.nonzero()[0])
            if step:
                raise self._not_finite("the loss is", step)
            cause = " and ".join(map(str, code_of(self.config.model).values())) or "the configuration"
            raise self.processes.error(f"the loss is not finite at step 0, before any update; look at {cause}")

    def _not_finite(self, what: str, step: int) -> BaseException:
        """The exception for a diverged run."""
        any_kept = list_checkpoints(self.folder.checkpoints)
        kept = "the last good checkpoint is kept in" if any_kept else "no checkpoint is in"
        return self.processes.error(
            f"{what} not finite at step {step}; lower optim.lr={self.config.optim.lr} or lengthen the warm-up "
            f"({kept} {self.folder.checkpoints})"
        )

    def end_pass(self) -> float | None:
        """Write the pass's line in metrics.jsonl, and report it; returns its score on held-out images, if measured."""
        line = self.pass_line()
        self.folder.append_metrics(line)
        self.reporter.passed(line)
        return line.get("val_map", line.get("val_accuracy"))

    def pass_line(self) -> dict[str, Any]:
        """The line of metrics.jsonl for the last pass, with accuracy and loss if an evaluation is due."""
        steps = self.loader.steps_per_pass
        last_step = self.pass_index * steps
        images = last_step * self.config.batch_size
        passed = slice(last_step - steps, last_step)
        losses = self.step.losses[passed].double()
        logged = {name: float(log[passed].double().nanmean()) for name, log in self.step.logged.items()}
        line = {
            "pass": self.pass_index,
            "step": last_step,
            "images": images,
            "train_s": self.train_s,
            "loss": float(losses.mean()),
            **{name: value for name, value in logged.items() if isfinite(value)},  # JSON knows no infinity
            "lr": float(self.lr[last_step - 1]),
            "images_per_s": images / self.train_s,
        }
        due = self.pass_index % self.config.train.eval_every_passes == 0
        if due or self.pass_index == self.config.schedule.passes:
            name, split = ("val", self.splits.val) if self.splits.val else ("test", self.splits.test)
            logits = predict_logits(self.averaged(), split.images, self.mean, self.std)
            line[f"{name}_accuracy"] = accuracy(logits, split.labels)
            if split.multilabel:
                line[f"{name}_map"] = mean_precision(
                    class_precisions(logits.numpy(), split.labels, self.splits.class_names)
                )
            if isfinite(loss := mean_loss(logits, split.labels)):
                line[f"{name}_loss"] = loss
        return line

    def averaged(self) -> ViT:
        """The model to evaluate, with the averaged weights if the run keeps an average."""
        if self.step.ema is None:
            return self.model
        model = copy.deepcopy(self.model)
        model.load_state_dict(self.step.ema.averages(), strict=False)  # only parameters are averaged
        return model

    def trained(self) -> TrainedModel:
        """The current model, with what it needs to be used alone."""
        mean, std = (tuple(float(x) for x in s) for s in self.stats)
        about = self.images_total, self.config.objective.name
        model = self.averaged()
        if self.patience.weights:
            model = copy.deepcopy(model)
            model.load_state_dict(self.patience.weights)
        model = model if self.config.train.freeze == "none" else folded(model)
        return TrainedModel(model, self.splits.class_names, mean, std, *about)

    @property
    def images_total(self) -> int | None:
        """Training images so far, with those of the models that the run starts and learns from; None if unknown."""
        start, teacher = self.start.images, self.objective.images_before
        if start is None or teacher is None:
            return None
        return int(self.step.step) * self.config.batch_size + start + teacher

    def drop_graph(self) -> None:
        """Delete the captured step: NCCL cannot end while a graph contains its communication."""
        if hasattr(self, "step"):  # `largest_batch` has deleted it
            self.step.graph = None

    def largest_batch(self) -> int:
        """The batch size that would fit at once on GPUs like this one, one per process, after it ran out of memory."""
        del self.step  # the next one has whole images
        plain = override(self.config, {"train.compile": False, "train.cuda_graph": False, "train.micro_batch": None})

        def run(batch_size: int) -> None:
            step = self._make_step(plain, ALONE)
            images, labels, erase, mix, drop_path, draws, dropout = self.chunks.load(0, 0, 1)
            rows = torch.arange(batch_size, device=self.device) % len(labels)  # of a smaller batch, some again
            drop_path, dropout = (None if tensor is None else tensor[..., rows] for tensor in (drop_path, dropout))
            draws = None if draws is None else draws[:, rows]
            step.set_chunk(Chunk(images[rows], labels[rows], erase[rows], mix, drop_path, draws, dropout))
            step()

        return largest_batch(run, self.device) * self.processes.size
