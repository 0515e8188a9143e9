"""The chunks of a run: consecutive steps of a pass, prepared while the device trains on the previous ones.

A chunk is planned, read and moved to the device by `pocketvit.loading.loader`; stochastic depth, which is also drawn
for every image, is added to the plan here.

Shapes: S steps, L blocks, B batch.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor

import numpy as np

from pocketvit.augment.batch import Chunk
from pocketvit.config import ModelConfig, RunConfig
from pocketvit.loading.loader import PassPlan, Reading, TrainLoader
from pocketvit.loading.prefetch import prefetch
from pocketvit.randomness import Stream, uniform


class Chunks:
    """The data of a run, chunk by chunk.

    Args:
        config: the run.
        loader: of its training images.
    """

    def __init__(self, config: RunConfig, loader: TrainLoader) -> None:
        self.config, self.loader = config, loader

    def remaining(self, threads: Executor, pass_index: int, step_in_pass: int) -> Iterator[Chunk]:
        """The chunks from a step of a pass to the end of the run, augmented on demand.

        Two other threads work ahead: one draws the next pass, one reads the next chunk.
        """
        plans = prefetch(threads, map(self.plan, range(pass_index, self.config.schedule.passes)))
        return map(self.loader.bring, prefetch(threads, self.readings(plans, step_in_pass)))

    def readings(self, plans: Iterable[PassPlan], first: int) -> Iterator[Reading]:
        """Read the chunks of some passes, the first one from step `first` on."""
        steps = self.loader.steps_per_pass
        for plan in plans:
            for start in range(first, steps, self.loader.chunk_steps):
                yield self.loader.read(plan, start, min(self.loader.chunk_steps, steps - start))
            first = 0

    def plan(self, pass_index: int) -> PassPlan:
        """Draw a pass, including stochastic depth."""
        plan, model = self.loader.plan(pass_index), self.config.model
        if not model.drop_path:
            return plan
        steps, batch_size = self.loader.steps_per_pass, self.config.batch_size
        columns = model.depth * 2 * batch_size
        draws = uniform(self.config.seed, Stream.DROP_PATH, pass_index, steps, columns)
        factors = drop_path_factors(model, draws.reshape(steps, model.depth, 2, batch_size))
        return dataclasses.replace(plan, drop_path=factors)

    def load(self, pass_index: int, first: int, count: int) -> Chunk:
        """Load some steps of a pass to the device at once."""
        return self.loader.load(self.plan(pass_index), first, count)


def drop_path_factors(config: ModelConfig, draws: np.ndarray) -> np.ndarray:
    """The factors of stochastic depth for each branch of each image.

    Args:
        config: gives the rate of the last block; the rate rises linearly from 0 in the first.
        draws: uniform numbers in [0, 1), (..., L, 2, B).
    Returns:
        0 for a skipped branch, else 1 / (probability of keeping it), float32, of the same shape.
    """
    kept = 1 - np.linspace(0, config.drop_path, config.depth, dtype=np.float32)[:, None, None]  # (L, 1, 1)
    return np.where(draws < kept, 1 / kept, 0).astype(np.float32)
