"""The chunks of a run: consecutive steps of a pass, made ready while the device trains on the ones before them.

A chunk is planned, read and brought to the device, as `pocketvit.loading.loader` does it for the images; here stochastic
depth, which is drawn for every image as well, goes the same way beside them.

Shapes: S steps, L blocks, B batch, B′ the share of it that this process trains on.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from pocketvit.config import ModelConfig, RunConfig
from pocketvit.device import to_device
from pocketvit.loading.loader import Chunk, PassPlan, Reading, TrainLoader
from pocketvit.loading.prefetch import prefetch
from pocketvit.randomness import Stream, uniform


@dataclass(frozen=True)
class Work:
    """Consecutive steps of a pass, ready on the device."""

    num_steps: int
    chunk: Chunk
    keep: Tensor | None
    """Stochastic depth, (S, L, 2, B′)."""


class Chunks:
    """What a run trains on, chunk by chunk.

    Args:
        config: the run.
        loader: of its training images.
    """

    def __init__(self, config: RunConfig, loader: TrainLoader) -> None:
        self.config, self.loader = config, loader

    def remaining(self, threads: Executor, pass_index: int, step_in_pass: int) -> Iterator[Work]:
        """The chunks from a step of a pass to the end of the run, augmented when asked for.

        Two other threads are ahead of that: one draws the next pass, one reads the next chunk.
        """
        plans = prefetch(threads, map(self.plan, range(pass_index, self.config.schedule.passes)))
        return (self.bring(*read) for read in prefetch(threads, self.readings(plans, step_in_pass)))

    def readings(
        self, plans: Iterable[tuple[PassPlan, np.ndarray | None]], first: int
    ) -> Iterator[tuple[Reading, np.ndarray | None]]:
        """Read the chunks of some passes, of the first one from step `first` on, each with its stochastic depth."""
        steps = self.loader.steps_per_pass
        for plan, keep in plans:
            for start in range(first, steps, self.loader.chunk_steps):
                yield self.read(plan, keep, start, min(self.loader.chunk_steps, steps - start))
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
        """Some steps of a pass on the device, at once."""
        return self.bring(*self.read(plan, keep, first, count))

    def read(
        self, plan: PassPlan, keep: np.ndarray | None, first: int, count: int
    ) -> tuple[Reading, np.ndarray | None]:
        """Collect some steps of a pass; asks nothing of the device."""
        if keep is not None:
            keep = keep[first : first + count][..., self.loader.share]  # (S, L, 2, B) -> (S, L, 2, B′)
        return self.loader.read(plan, first, count), keep

    def bring(self, reading: Reading, keep: np.ndarray | None) -> Work:
        """Bring steps that were collected to the device."""
        chunk = self.loader.bring(reading)
        return Work(len(reading.mix), chunk, None if keep is None else to_device(keep, self.loader.device))


def drop_path_factors(config: ModelConfig, draws: np.ndarray) -> np.ndarray:
    """What stochastic depth multiplies each branch of each image by.

    Args:
        config: gives the rate of the last block; the rate rises linearly from 0 in the first.
        draws: uniform numbers in [0, 1), (..., L, 2, B).
    Returns:
        0 where a branch is skipped, 1 / (chance to keep it) elsewhere, float32, of the same shape.
    """
    keep = 1 - np.linspace(0, config.drop_path, config.depth, dtype=np.float32)[:, None, None]  # (L, 1, 1)
    return np.where(draws < keep, 1 / keep, 0).astype(np.float32)
