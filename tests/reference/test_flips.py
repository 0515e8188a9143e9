"""Alternating flips and averages over flips against the oracle of another hand."""

import numpy as np
import pytest
import torch
from neighbours.flips import alternating_flip, assert_alternates, flip_average
from torch import nn

from pocketvit.augment.augment import ImageTable, draw_images
from pocketvit.config import AugmentConfig, RunConfig, override
from pocketvit.errors import InputError
from pocketvit.inference.logits import predict_logits

PASSES = 5


def tables(size: int = 2000, **config) -> list[ImageTable]:
    drawn = AugmentConfig(**config, policy="none")
    return [draw_images(drawn, seed=3, pass_index=p, size=size, image_size=(8, 8)) for p in range(PASSES)]


def test_flips_alternate():
    alternating = tables(flips="alternating")
    assert_alternates(np.stack([table.flip for table in alternating]))
    plain = tables()
    assert (plain[0].flip == alternating[0].flip).all(), "the first pass draws its flips as always"
    for name in ("shift", "erase"):
        assert all((getattr(a, name) == getattr(b, name)).all() for a, b in zip(plain, alternating, strict=True))
    assert (plain[0].flip != plain[2].flip).any()


def test_another_probability_is_that_of_the_first_pass():
    flips = [table.flip for table in tables(flips="alternating", flip_prob=0.1)]
    assert 0.05 < flips[0].mean() < 0.15
    assert all((flip == alternating_flip(flips[0], number)).all() for number, flip in enumerate(flips))


def test_a_row_belongs_to_its_image_whatever_the_size():
    few, many = tables(10, flips="alternating"), tables(100, flips="alternating")
    assert all((a.flip == b.flip[:10]).all() for a, b in zip(few, many, strict=True))


def test_they_are_refused_where_nothing_is_flipped():
    with pytest.raises(InputError, match="augment.flips=alternating has no effect with augment.flip_prob=0"):
        override(RunConfig(), {"augment.flips": "alternating", "augment.flip_prob": 0})


def test_logits_averaged_over_flips():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 5, 7), nn.Tanh())
    images = np.random.default_rng(0).integers(0, 256, (23, 4, 5, 3), dtype=np.uint8)
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.3])
    pixels = ((images / 255 - mean.numpy()) / std.numpy()).transpose(0, 3, 1, 2)

    def outputs(x: np.ndarray) -> np.ndarray:
        return model(torch.tensor(x.copy(), dtype=torch.float32)).detach().numpy()

    found = predict_logits(model, images, mean, std, flip_average=True).numpy()
    np.testing.assert_allclose(found, flip_average(outputs, pixels), atol=1e-6)
    assert abs(found - predict_logits(model, images, mean, std).numpy()).max() > 0.1
