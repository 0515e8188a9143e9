"""Evaluation where memory is short."""

import numpy as np
import pytest
import torch

from pocketvit.training.evaluate import EVAL_BATCH, predict_logits


class Narrow(torch.nn.Module):
    """Says the mean of each channel; has room for so many images."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > self.room:
            raise torch.cuda.OutOfMemoryError
        return images.mean(dim=(2, 3))


def logits(room: int) -> torch.Tensor:
    images = np.random.default_rng(0).integers(0, 256, (23, 4, 4, 3), dtype=np.uint8)
    return predict_logits(Narrow(room), images, torch.zeros(3), torch.ones(3))


def test_fewer_images_at_a_time_where_there_is_no_room(monkeypatch):
    monkeypatch.setitem(EVAL_BATCH, "cpu", 10)
    assert torch.equal(logits(room=3), logits(room=100))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        logits(room=0)
