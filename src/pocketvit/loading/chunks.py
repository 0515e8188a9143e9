"""The chunks of a run: consecutive steps of a pass, prepared while the device trains on the previous ones.

A chunk is planned, read and moved to the device by `pocketvit.loading.loader`; stochastic depth, dropout and the
objective's numbers, which are also drawn for every image, are added to the plan here.

Shapes: S steps, L layers, B batch, n numbers that the objective draws for an image.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from itertools import islice
from math import prod
from typing import TypeVar

import numpy as np

from pocketvit.augment.batch import Chunk
from pocketvit.config import ModelConfig, RunConfig
from pocketvit.loading.loader import PassPlan, Reading, TrainLoader
from pocketvit.randomness import Stream, keys, uniform

T = TypeVar("T")


class Chunks:
    """The data of a run, chunk by chunk.

    Args:
        num_draws: n.
    """

    def __init__(self, config: RunConfig, loader: TrainLoader, num_draws: int = 0) -> None:
        self.config, self.loader, self.num_draws = config, loader, num_draws

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
        """Draw a pass, including stochastic depth, dropout and what the objective draws."""
        plan, model, factors, draws, dropout = self.loader.plan(pass_index), self.config.model, None, None, None
        frozen = self.config.train.freeze != "none"
        if model.drop_path and not frozen:
            factors = drop_path_factors(
                model, self._draw(Stream.DROP_PATH, pass_index, model.num_layers, 2, self.config.batch_size)
            )
        if self.num_draws:
            draws = self._draw(Stream.OBJECTIVE, pass_index, self.config.batch_size, self.num_draws)
        if model.dropout and not frozen:
            steps, shape = self.loader.steps_per_pass, (model.num_dropouts, self.config.batch_size)
            dropout = keys(self.config.seed, Stream.DROPOUT, pass_index, steps, prod(shape)).reshape(steps, *shape)
        return dataclasses.replace(plan, drop_path=factors, draws=draws, dropout=dropout)

    def _draw(self, stream: Stream, pass_index: int, *shape: int) -> np.ndarray:
        """Uniform numbers for each step of a pass, (S, *shape)."""
        steps = self.loader.steps_per_pass
        return uniform(self.config.seed, stream, pass_index, steps, prod(shape)).reshape(steps, *shape)

    def load(self, pass_index: int, first: int, count: int) -> Chunk:
        """Load some steps of a pass to the device at once."""
        return self.loader.load(self.plan(pass_index), first, count)


def drop_path_factors(config: ModelConfig, draws: np.ndarray) -> np.ndarray:
    """The factors of stochastic depth for each branch of each image.

    Args:
        config: gives the rate of the last layer; the rate rises linearly from 0 in the first.
        draws: uniform numbers in [0, 1), (..., L, 2, B).
    Returns:
        0 for a skipped branch, else 1 / (probability of keeping it), float32, of the same shape.
    """
    kept = 1 - np.linspace(0, config.drop_path, config.num_layers, dtype=np.float32)[:, None, None]  # (L, 1, 1)
    return np.where(draws < kept, 1 / kept, 0).astype(np.float32)


def prefetch(threads: Executor, items: Iterator[T]) -> Iterator[T]:
    """The items, each made in another thread while the previous one is used.

    Args:
        threads: where items are made, one at a time. An iterator that itself comes from `prefetch` needs one more thread.
        items: what to make; the first is begun on demand.
    Raises:
        any exception from making an item, when that item is requested.
    """
    coming = threads.submit(list, islice(items, 1))
    while made := coming.result():
        coming = threads.submit(list, islice(items, 1))
        yield from made
