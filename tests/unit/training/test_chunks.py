"""The chunks of a run: every step once, in order, from wherever the run stands."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from pocketvit.config import override
from pocketvit.data import Split, Splits
from pocketvit.recipes import recipe
from pocketvit.training.progress import Silent
from pocketvit.training.trainer import Trainer

SET = Split(np.random.default_rng(0).integers(0, 256, (90, 16, 16, 3), dtype=np.uint8), np.arange(90) % 3)


@pytest.mark.parametrize(
    ("pass_index", "step_in_pass", "expected"),
    [
        (0, 0, [(p, *part) for p in range(3) for part in ((0, 4), (4, 4), (8, 3))]),
        (1, 6, [(1, 6, 4), (1, 10, 1), (2, 0, 4), (2, 4, 4), (2, 8, 3)]),
        (3, 0, []),
    ],
)
def test_remaining_is_what_is_left_of_the_run(monkeypatch, pass_index, step_in_pass, expected):
    monkeypatch.setattr("pocketvit.data.loader.CHUNK_IMAGES", {"cpu": 4 * 8})
    values = {"batch_size": 8, "schedule.passes": 3, "schedule.warmup_passes": 1}
    values |= {"model.width": 24, "model.num_heads": 2, "model.depth": 1}
    config = override(recipe("paper"), values)
    trainer = Trainer(config, Splits(SET, None, SET, ("a", "b", "c"), "made", ()), torch.device("cpu"), Silent())
    with ThreadPoolExecutor(2) as threads:
        found = list(trainer.chunks.remaining(threads, pass_index, step_in_pass))
    assert [work.num_steps for work in found] == [count for _, _, count in expected]
    for work, (in_pass, first, count) in zip(found, expected, strict=True):
        direct = trainer.chunks.load(*trainer.chunks.plan(in_pass), first, count)
        assert torch.equal(work.keep, direct.keep)
        for a, b in zip(work.chunk.tensors(), direct.chunk.tensors(), strict=True):
            assert torch.equal(a, b)
