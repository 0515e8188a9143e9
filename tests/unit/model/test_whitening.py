"""Whitening filters: what they do to the patches they were made from, and where they are put."""

import numpy as np
import torch
from torch.nn import functional as F

from pocketvit.config import ModelConfig
from pocketvit.model import ViT
from pocketvit.model.whitening import WHITENING_EPS, whiten, whitening_filters


def images(real_images):
    return torch.from_numpy(real_images).permute(0, 3, 1, 2).float() / 128 - 1


def test_answers_have_the_stated_second_moment(real_images):
    pixels = images(real_images)
    filters = whitening_filters(pixels, 4).double()
    patches = F.unfold(pixels.double(), 4).transpose(1, 2).flatten(0, 1)  # every 4 × 4 patch, a pixel apart
    values = torch.linalg.eigvalsh(patches.T @ patches / len(patches)).flip(0)
    answers = patches @ filters.flatten(1).T
    moment = answers.T @ answers / len(answers)
    torch.testing.assert_close(moment, torch.diag(values / (values + WHITENING_EPS)), rtol=1e-4, atol=1e-4)


def test_filters_are_those_of_float64_to_the_last(real_images):
    """Eigenvalues lie close together at the end: with the second moment in float32 the last filters would be noise."""
    filters = whitening_filters(images(real_images), 4).double().flatten(1).numpy()
    pixels = real_images.astype(np.float64) / 128 - 1
    patches = np.lib.stride_tricks.sliding_window_view(pixels, (4, 4), axis=(1, 2)).reshape(-1, 48)
    values, vectors = np.linalg.eigh(patches.T @ patches / len(patches))
    expected = (vectors / np.sqrt(values + WHITENING_EPS)).T[::-1]
    signs = np.sign((filters * expected).sum(1, keepdims=True))
    errors = np.linalg.norm(signs * filters - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert errors.max() < 1e-6


def test_all_48_filters_take_the_first_places_and_the_rest_stay(real_images):
    model = ViT(ModelConfig(depth=1))
    before = model.tokens.patches.proj.weight.detach().clone()
    filters = whitening_filters(images(real_images), 4)
    whiten(model.tokens.patches, filters, pairs=False)
    after = model.tokens.patches.proj.weight
    assert filters.shape == (48, 3, 4, 4)
    assert torch.equal(after[:48], filters) and torch.equal(after[48:], before[48:])
    assert after.requires_grad


def test_pairs_stand_beside_their_negatives_and_stop_at_the_width(real_images):
    model = ViT(ModelConfig(depth=1, width=60))
    filters = whitening_filters(images(real_images), 4)
    whiten(model.tokens.patches, filters, pairs=True)
    weight = model.tokens.patches.proj.weight.detach()
    assert torch.equal(weight[0::2], filters[:30]) and torch.equal(weight[1::2], -filters[:30])
