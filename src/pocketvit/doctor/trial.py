"""Some training steps without a run folder, and back to the start.

Shapes: B batch, S steps.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch

from pocketvit.augment.batch import BatchMaker, Chunk
from pocketvit.device import synchronize
from pocketvit.randomness import Stream, permutation
from pocketvit.training.trainer import Trainer

DIFFERENT = 32  # images of the batch that is learned by heart
UNMIXED = (1, 1, 0, 0, 0, 0, 1)  # a row of the table of `pocketvit.augment.mix`
WARM_UP = 10  # steps in which the learning rate rises to learn a batch by heart
LEAST_STEPS = 30  # of a trial, however slow the machine
FIRST_STEPS = 4  # to see how fast it is
BLOWN_UP = 4.0
"""A loss of so many times the first one ends a trial: it only becomes worse."""


@dataclass(frozen=True)
class Budget:
    """The time that a doctor may take. Tests give a clock that stands still, so that all steps are run.

    Args:
        seconds: of all trials together.
        most: steps of a trial.
        clock: in seconds.
    """

    seconds: float = 40.0
    most: int = 300
    clock: Callable[[], float] = time.perf_counter

    def steps(self, share: float, step_s: float) -> int:
        """How many steps of `step_s` seconds a trial with a share of the time has, at least `LEAST_STEPS`."""
        fit = self.most if step_s * self.most <= share * self.seconds else int(share * self.seconds / step_s)
        return min(self.most, max(LEAST_STEPS, fit))


class Trial:
    """Training steps from a trainer's first state, as often as wanted.

    Args:
        trainer: before its first step; its schedule has at least `budget.most` steps.
    """

    def __init__(self, trainer: Trainer, budget: Budget) -> None:
        self.trainer, self.budget = trainer, budget
        self.first = {name: tensor.clone() for name, tensor in trainer.step.state().items()}
        self.seconds, self.steps_timed = 0.0, 0
        """What loading and running that many steps took, without compiling."""

        for _ in range(2):  # what runs first takes longer
            self.seconds, self.steps_timed = 0.0, 0
            self.run(np.zeros(FIRST_STEPS))

    def steps(self, share: float) -> int:
        """How many steps a trial has that may take this share of the time."""
        return self.budget.steps(share, self.seconds / max(1, self.steps_timed))

    def reset(self) -> None:
        """Back to the first state."""
        self.trainer.step.load_state(self.first)
        self.trainer.model.train()

    def chunks(self, steps: int) -> Iterator[Chunk]:
        """The first steps of the run, in chunks."""
        loader, left = self.trainer.loader, steps
        for pass_index in count():
            plan = self.trainer.chunks.plan(pass_index)
            for start in range(0, loader.steps_per_pass, loader.chunk_steps):
                size = min(loader.chunk_steps, loader.steps_per_pass - start, left)
                if size == 0:
                    return
                yield loader.load(plan, start, size)
                left -= size

    def run(self, factors: np.ndarray) -> np.ndarray:
        """Train the first steps of the run with these learning rates over the peak, (S,).

        Returns:
            the loss before each step; fewer than S if it is not finite or has blown up, which is the last one.
        """
        self.reset()
        step, clock, losses = self.trainer.step, self.budget.clock, []
        step.factors[: len(factors)] = torch.from_numpy(factors.astype(np.float32)).to(step.factors.device)
        began = clock()
        for chunk in self.chunks(len(factors)):
            loaded = clock()
            step.set_chunk(chunk)  # compiles and captures, not timed
            set_up = clock()
            for _ in range(chunk.num_steps):
                step()
                losses.append(float(step.losses[len(losses)]))
                if not np.isfinite(losses[-1]) or losses[-1] > BLOWN_UP * max(losses[0], 1e-9):
                    return np.array(losses)
            synchronize(self.trainer.device)
            ended = clock()
            self.seconds += loaded - began + ended - set_up
            self.steps_timed += chunk.num_steps
            began = ended
        return np.array(losses)

    def one_batch(self) -> tuple[Chunk, float]:
        """A batch of a few different clean images, and the least loss on it: the entropy of its smoothed targets."""
        trainer = self.trainer
        loader, plan, device = trainer.loader, trainer.chunks.plan(0), trainer.device
        rows = permutation(loader.seed, Stream.SAMPLE, 0, len(loader.split))[:DIFFERENT]
        keep = None if plan.drop_path is None else torch.ones_like(torch.from_numpy(plan.drop_path[:1])).to(device)
        chunk = loader.sample(np.resize(rows, len(loader.share)), pass_index=None)._replace(
            mix=torch.tensor([UNMIXED], dtype=torch.float32, device=device),
            drop_path=keep,
            draws=None if plan.draws is None else torch.from_numpy(plan.draws[:1]).to(device),
        )
        num_classes, smoothing = len(trainer.splits.class_names), trainer.config.optim.label_smoothing
        maker = BatchMaker(trainer.mean, trainer.std, num_classes=num_classes, label_smoothing=smoothing)
        targets = maker.finish(chunk).targets
        entropy = torch.special.entr(targets)  # (B, K)
        if trainer.splits.train.multilabel:
            return chunk, float((entropy + torch.special.entr(1 - targets)).mean())
        return chunk, float(entropy.sum(dim=1).mean())

    def by_heart(self, chunk: Chunk, factor: float, steps: int, enough: Callable[[float, float], bool]) -> np.ndarray:
        """Train on one batch again and again until its loss is low enough.

        Source: Karpathy 2019, "A Recipe for Training Neural Networks", https://karpathy.github.io/2019/04/25/recipe/

        Args:
            chunk: of one step.
            factor: the learning rate over its peak.
            enough: whether a loss is, given the first one.
        Returns:
            the loss before each step.
        """
        self.reset()
        step, losses = self.trainer.step, []
        step.factors[:steps] = factor * torch.linspace(1 / WARM_UP, steps / WARM_UP, steps).clamp(max=1)
        step.set_chunk(chunk)
        for _ in range(steps):
            step.position.zero_()  # the same batch again
            step()
            losses.append(float(step.losses[len(losses)]))
            if not np.isfinite(losses[-1]) or enough(losses[-1], losses[0]):
                break
        return np.array(losses)
