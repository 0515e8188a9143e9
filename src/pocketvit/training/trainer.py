"""The state of a run, and its passes.

Training is interrupted only between steps: Ctrl-C or SIGTERM lets the step finish, saves and says how to go on.
"""

import copy
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pocketvit.config import RunConfig
from pocketvit.data import Splits, channel_stats
from pocketvit.data.transfer import to_device
from pocketvit.data.augment import normalise_and_erase
from pocketvit.data.loader import Chunk, PassPlan, TrainLoader
from pocketvit.model import ViT, drop_path_factors
from pocketvit.model.whitening import whiten, whitening_filters
from pocketvit.optim.build import build_optimizers
from pocketvit.optim.ema import EMA
from pocketvit.optim.schedule import lr_table
from pocketvit.randomness import Stream, permutation, torch_seed, uniform
from pocketvit.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from pocketvit.training.device import largest_batch, synchronize, uses_bf16
from pocketvit.training.distributed import ALONE, Processes
from pocketvit.training.evaluate import TrainedModel, accuracy, predict_logits
from pocketvit.training.progress import Reporter
from pocketvit.training.runlog import RunFolder
from pocketvit.training.step import Loss, TrainStep
from pocketvit.training.stop import Stopped, StopRequest


WHITENING_IMAGES = 5_000
"""Training images whose patches the whitening filters come from, as in the paper's code."""


@dataclass(frozen=True)
class Work:
    """Consecutive steps of a pass, ready on the device."""

    num_steps: int
    chunk: Chunk
    keep: Tensor | None
    """Stochastic depth, (S, L, 2, B′)."""


class Trainer:
    """The state of a run and the passes over it.

    Args:
        config: the run.
        splits: its data.
        device: where it runs.
        reporter: where it says how it goes.
        processes: that share the work. All of them call the same methods in the same order.
    """

    folder: RunFolder

    def __init__(
        self,
        config: RunConfig,
        splits: Splits,
        device: torch.device,
        reporter: Reporter,
        processes: Processes = ALONE,
    ) -> None:
        self.config, self.splits, self.device, self.reporter = config, splits, device, reporter
        self.processes = processes
        self.loader = TrainLoader(
            splits.train,
            data=config.data,
            augment=config.augment,
            seed=config.seed,
            batch_size=config.batch_size,
            device=device,
            share=processes.share(config.batch_size),
        )
        self.model = ViT(
            config.model,
            image_size=self.loader.image_size,
            num_classes=len(splits.class_names),
            generator=torch.Generator().manual_seed(torch_seed(config.seed, Stream.INIT)),
        ).to(device)
        self.stats = channel_stats(splits.train.images)
        self.mean, self.std = (torch.tensor(s, dtype=torch.float32, device=device) for s in self.stats)
        self.filters = self._whiten() if config.model.patch_init == "whitening" else None
        """Whitening filters that the patch embedding started from, (F, C, p, p)."""
        schedule = config.schedule
        self.lr = lr_table(
            schedule.name,
            peak=config.optim.lr,
            steps=schedule.passes * self.loader.steps_per_pass,
            warmup_steps=schedule.warmup_passes * self.loader.steps_per_pass,
            warmup_lr=schedule.warmup_lr,
            final_lr=schedule.final_lr,
            decay_frac=schedule.decay_frac,
        )
        """Learning rate of every step of the run, (total steps,)."""
        self.step = self._make_step(len(self.loader.share), processes, compile=config.train.compile)
        self.pass_index, self.step_in_pass, self.train_s = 0, 0, 0.0

    def _whiten(self) -> Tensor:
        """Start the patch embedding from the whitening filters of some training images, clean or augmented."""
        model, loader = self.config.model, self.loader
        sample = permutation(self.config.seed, Stream.SAMPLE, 0, len(self.splits.train))[:WHITENING_IMAGES]
        images = loader.sample(sample, pass_index=0 if model.whitening_patches == "augmented" else None)
        pixels = normalise_and_erase(images.images, self.mean, self.std, images.erase)
        filters = whitening_filters(pixels, model.patch_size)
        whiten(self.model.tokens.patches, filters, pairs=model.whitening_pairs)
        return filters

    def _make_step(
        self, batch_size: int, processes: Processes, *, compile: bool | None, cuda_graph: bool | None = None
    ) -> TrainStep:
        optim, on_cuda = self.config.optim, self.device.type == "cuda"
        bf16 = uses_bf16(self.config.train.precision, self.device)
        return TrainStep(
            self.model,
            build_optimizers(optim, self.model),
            Loss(
                self.mean,
                self.std,
                num_classes=len(self.splits.class_names),
                label_smoothing=optim.label_smoothing,
                bf16=bf16,
                batch_size=self.config.batch_size,
            ),
            ema=EMA(dict(self.model.named_parameters()), optim.ema_decay) if optim.ema_decay else None,
            factors=self.lr / optim.lr,
            batch_size=batch_size,
            processes=processes,
            compile=on_cuda if compile is None else compile,
            cuda_graph=self.config.train.cuda_graph if cuda_graph is None else cuda_graph,
        )

    def resume(self) -> None:
        """Go on from the folder's newest whole checkpoint, or from the start where there is none."""
        progress = self.processes.from_first(self._restore)
        self.processes.copy_from_first(list(self.step.state().values()))
        self.pass_index, self.step_in_pass = progress.pass_index, progress.step_in_pass
        self.train_s = progress.train_s

    def _restore(self) -> Progress:
        """Read the newest whole checkpoint, and cut the metrics to what belongs to it; says where the run stands."""
        found = load_checkpoint(self.folder.checkpoints)
        if found is None:
            self.folder.cut_metrics(0)
            return Progress(pass_index=0, step_in_pass=0, train_s=0.0, metrics_bytes=0)
        state, progress, passed_over = found
        for line in passed_over:
            self.reporter.note(line)
        self.step.load_state(state)
        self.folder.cut_metrics(progress.metrics_bytes)
        self.reporter.note(f"going on from step {int(self.step.step)} (pass {progress.pass_index + 1})")
        return progress

    def save(self) -> None:
        """Write a checkpoint of where the run stands."""
        self.processes.from_first(self._save)

    def _save(self) -> None:
        progress = Progress(self.pass_index, self.step_in_pass, self.train_s, self.folder.metrics_bytes())
        save_checkpoint(self.folder.checkpoints, int(self.step.step), self.step.state(), progress)

    def run(self) -> None:
        """Train to the end of the schedule.

        Raises:
            InputError: the loss is not finite.
            Stopped: a signal came.
        """
        with ThreadPoolExecutor(max_workers=1) as planner, StopRequest() as stop:
            began = time.perf_counter()
            work = self.work(planner)
            current = next(work, None)
            synchronize(self.device)
            self.train_s += time.perf_counter() - began
            if current is not None:
                self.model.train()
                self.step.set_chunk(current.chunk, current.keep)  # compiles and captures, off the clock
                self.reporter.start(self.config.schedule.passes * self.loader.steps_per_pass, int(self.step.step))
            while current is not None:
                began = time.perf_counter()
                done = self.run_chunk(current, stop)
                current = next(work, None) if stop.signum is None else None  # loads while the device still trains
                synchronize(self.device)
                self.train_s += time.perf_counter() - began
                self.end_chunk(done)
                signum = self.processes.agree(stop.signum)
                if signum is not None:
                    self.save()
                    raise Stopped(signum, self.folder.path)

    def work(self, planner: Executor) -> Iterator[Work]:
        """The chunks of the rest of the run, each loaded when asked for and drawn a pass ahead in another thread."""
        passes, steps = self.config.schedule.passes, self.loader.steps_per_pass
        first, planned = self.step_in_pass, planner.submit(self.plan, self.pass_index)
        for pass_index in range(self.pass_index, passes):
            plan, keep = planned.result()
            if pass_index + 1 < passes:
                planned = planner.submit(self.plan, pass_index + 1)
            while first < steps:
                count = min(self.loader.chunk_steps, steps - first)
                yield self.load(plan, keep, first, count)
                first += count
            first = 0

    def plan(self, pass_index: int) -> tuple[PassPlan, np.ndarray | None]:
        """Draw a pass: what the loader needs, and stochastic depth (S, L, 2, B)."""
        plan, model = self.loader.plan(pass_index), self.config.model
        if not model.drop_path:
            return plan, None
        steps, batch_size = self.loader.steps_per_pass, self.config.batch_size
        columns = model.depth * 2 * batch_size
        draws = uniform(self.config.seed, Stream.DROP_PATH, pass_index, steps, columns)
        return plan, drop_path_factors(model, draws.reshape(steps, model.depth, 2, batch_size))

    def load(self, plan: PassPlan, keep: np.ndarray | None, first: int, count: int) -> Work:
        """Bring some steps of a pass to the device."""
        if keep is not None:
            keep = to_device(keep[first : first + count][..., self.loader.share], self.device)  # (S, L, 2, B′)
        return Work(count, self.loader.load(plan, first, count), keep)

    def run_chunk(self, work: Work, stop: StopRequest) -> int:
        """Ask the device for the steps of a chunk, until a signal comes; how many were asked for.

        All processes must stop after the same step. Those on GPUs agree on that once a chunk only, because asking in
        every step would keep them from running ahead.
        """
        self.step.set_chunk(work.chunk, work.keep)
        looks = self.processes.size == 1 or self.device.type != "cuda"
        for done in range(work.num_steps):
            if looks and self.processes.agree(stop.signum) is not None:
                return done
            self.step()
            self.reporter.advance(1)
        return work.num_steps

    def end_chunk(self, done: int) -> None:
        """Count the steps done; at the end of a pass log, evaluate and save."""
        self._check_finite(int(self.step.step) - done)
        self.step_in_pass += done
        if self.step_in_pass < self.loader.steps_per_pass:
            return
        self.pass_index, self.step_in_pass = self.pass_index + 1, 0
        self.processes.from_first(self.end_pass)
        every = self.config.train.checkpoint_every_passes
        if every and self.pass_index % every == 0 and self.pass_index < self.config.schedule.passes:
            self.save()

    def _check_finite(self, first: int) -> None:
        losses = self.step.losses[first : int(self.step.step)]
        bad = ~torch.isfinite(losses)
        if bad.any():
            at = first + int(bad.nonzero()[0])
            raise self.processes.error(
                f"the loss is not finite at step {at}; lower optim.lr={self.config.optim.lr} or lengthen the warm-up "
                f"(the last good checkpoint is kept in {self.folder.checkpoints})"
            )

    def end_pass(self) -> None:
        """Write the pass's line in metrics.jsonl, with an accuracy where one is due."""
        steps = self.loader.steps_per_pass
        last_step = self.pass_index * steps
        images = last_step * self.config.batch_size
        losses = self.step.losses[last_step - steps : last_step].double()
        line = {
            "pass": self.pass_index,
            "step": last_step,
            "images": images,
            "train_s": self.train_s,
            "loss": float(losses.mean()),
            "lr": float(self.lr[last_step - 1]),
            "images_per_s": images / self.train_s,
        }
        due = self.pass_index % self.config.train.eval_every_passes == 0
        if due or self.pass_index == self.config.schedule.passes:
            name, split = ("val", self.splits.val) if self.splits.val else ("test", self.splits.test)
            logits = predict_logits(self.averaged(), split.images, self.mean, self.std)
            line[f"{name}_accuracy"] = accuracy(logits, split.labels)
        self.folder.append_metrics(line)
        self.reporter.passed(line)

    def averaged(self) -> ViT:
        """The model to evaluate: with its averaged weights, where the run keeps an average, else the model itself."""
        if self.step.ema is None:
            return self.model
        model = copy.deepcopy(self.model)
        model.load_state_dict(self.step.ema.averages(), strict=False)  # an average is kept of parameters only
        return model

    def trained(self) -> TrainedModel:
        """The model as it is, with what it needs to be used alone."""
        mean, std = (tuple(float(x) for x in s) for s in self.stats)
        return TrainedModel(self.averaged(), self.splits.class_names, mean, std)

    def largest_batch(self) -> int:
        """The batch size that would fit GPUs like this one, one a process, after it ran out of memory."""
        del self.step

        def run(batch_size: int) -> None:
            step = self._make_step(batch_size, ALONE, compile=False, cuda_graph=False)
            work = self.load(*self.plan(0), 0, 1)
            step.set_chunk(work.chunk, None if work.keep is None else work.keep[..., :batch_size])
            step()

        return largest_batch(run, self.device) * self.processes.size
