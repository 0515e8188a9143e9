"""The state of a run, built from its configuration.

`loop` trains it, `evaluation` measures it after a pass, `resume` saves it and takes it up again.
"""

import copy
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pocketvit.augment.batch import Chunk
from pocketvit.config import RunConfig, override
from pocketvit.config.training import Kernels
from pocketvit.data import Splits, channel_stats
from pocketvit.device import fitting_threads, largest_batch
from pocketvit.inference.trained_model import TrainedModel
from pocketvit.loading.balance import balance_note
from pocketvit.loading.chunks import Chunks
from pocketvit.model import ViT
from pocketvit.optim.schedule import lr_table
from pocketvit.randomness import Stream, permutation
from pocketvit.runs.folder import RunFolder
from pocketvit.training.compiling import kernels_compiled
from pocketvit.training.distributed import ALONE, Processes
from pocketvit.training.patience import Patience
from pocketvit.training.probe import folded, standardize
from pocketvit.training.progress import Reporter
from pocketvit.training.setup import (
    PATCH_INITS,
    choose_kernels,
    freeze,
    image_dtype,
    make_loader,
    make_model,
    make_objective,
    make_step,
    stacks_by_side,
)
from pocketvit.training.start import Start, start_from
from pocketvit.training.step import TrainStep

STANDARDIZING_IMAGES = 5_000  # training images from which a linear probe's features are standardized


class Trainer:
    """The state of a run.

    Args:
        processes: that share the work. All of them make the same calls in the same order.
    """

    folder: RunFolder
    measured: dict[str, Any]
    """How `schedule.time_budget` was decided, for env.json."""

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
        images = image_dtype(config, self.model, self.objective, device)
        with (
            kernels_compiled(self.model, sum(map(tuple, by_side), ()), *sizes, images) if self.fused else nullcontext()
        ):
            self._set_up()
        self.pass_index, self.step_in_pass, self.train_s = 0, 0, 0.0
        self.started = time.perf_counter()
        """From which `total_s` counts; earlier by the parts of the run before this one."""
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
