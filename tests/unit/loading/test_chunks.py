"""The chunks of a run: every step once, in order, from wherever the run stands; and batches to measure memory by."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from pocketvit.config import override
from pocketvit.data import Split, Splits
from pocketvit.recipes import recipe
from pocketvit.training.progress import SilentReporter
from pocketvit.training.step import TrainStep
from pocketvit.training.trainer import Trainer

SET = Split(np.random.default_rng(0).integers(0, 256, (90, 16, 16, 3), dtype=np.uint8), np.arange(90) % 3)


def small_trainer() -> Trainer:
    values = {"batch_size": 8, "schedule.passes": 3, "schedule.warmup_passes": 1}
    values |= {"model.width": 24, "model.num_heads": 2, "model.depth": 1}
    config = override(recipe("paper"), values)
    return Trainer(
        config, Splits(SET, None, SET, ("a", "b", "c"), "synthetic", ()), torch.device("cpu"), SilentReporter()
    )


@pytest.mark.parametrize(
    ("pass_index", "step_in_pass", "expected"),
    [
        (0, 0, [(p, *part) for p in range(3) for part in ((0, 4), (4, 4), (8, 3))]),
        (1, 6, [(1, 6, 4), (1, 10, 1), (2, 0, 4), (2, 4, 4), (2, 8, 3)]),
        (3, 0, []),
    ],
)
def test_remaining_is_what_is_left_of_the_run(monkeypatch, pass_index, step_in_pass, expected):
    monkeypatch.setattr("pocketvit.loading.loader.CHUNK_IMAGES", {"cpu": 4 * 8})
    trainer = small_trainer()
    with ThreadPoolExecutor(2) as threads:
        found = list(trainer.chunks.remaining(threads, pass_index, step_in_pass))
    assert [chunk.num_steps for chunk in found] == [count for _, _, count in expected]
    for chunk, (in_pass, first, count) in zip(found, expected, strict=True):
        direct = trainer.chunks.load(in_pass, first, count)
        assert chunk.draws is direct.draws is None
        for a, b in zip(chunk[:5], direct[:5], strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("batch_size", [4, 8, 64])
def test_memory_is_measured_at_the_batch_size_asked_for_also_beyond_the_runs_own(monkeypatch, batch_size):
    taken = []

    def measure(run, device):
        run(batch_size)
        return 0

    def note(step, chunk):
        taken.append((*(len(tensor) for tensor in chunk[:3]), chunk.drop_path.shape[-1]))
        set_chunk(step, chunk)

    set_chunk = TrainStep.set_chunk
    monkeypatch.setattr("pocketvit.training.trainer.largest_batch", measure)
    monkeypatch.setattr(TrainStep, "set_chunk", note)
    small_trainer().largest_batch()
    assert taken == [(batch_size,) * 4]
