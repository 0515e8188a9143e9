"""The stems of other papers against plain float64 functions written from the papers."""

import numpy as np
import pytest
import torch
from neighbours.conv_stem import cct_num_params, cct_tokenizer, sequence_pool
from neighbours.shifted_patches import num_params, shifted_patch_tokens
from torch import nn

from pocketvit.config import ModelConfig
from pocketvit.errors import InputError
from pocketvit.model import ViT, create_model
from pocketvit.model.stems import STEMS

IMAGES = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def stem_of(name: str, **values) -> nn.Module:
    """A stem for the images above in float64, with parameters that matter."""
    stem = STEMS[name](ModelConfig(stem=name, width=10, num_heads=1, **values), (8, 12)).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in stem.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return stem


def tokens_of(stem: nn.Module) -> torch.Tensor:
    """All of the stem's part in the patch tokens, after two tokens that it leaves at zero."""
    tokens = stem(IMAGES, lead=2)
    assert tokens.shape == (2, 2 + stem.num_patches, 10) and not tokens[:, :2].any()
    return tokens[:, 2:] + stem.bias


@pytest.mark.parametrize("patch", [2, 4])
def test_shifted_patches_equal_a_loop(patch):
    stem = stem_of("shifted", patch_size=patch)
    weight, bias, scale, offset = (p.detach().numpy() for p in (*stem.proj.parameters(), *stem.norm.parameters()))
    want = shifted_patch_tokens(IMAGES.numpy(), patch, weight.reshape(10, -1), bias, scale, offset, eps=1e-6)
    np.testing.assert_allclose(tokens_of(stem).detach(), want, rtol=1e-9, atol=1e-9)


def test_overlapping_shifted_patches_are_those_between_as_well():
    apart, over = stem_of("shifted", patch_size=4), stem_of("shifted", patch_size=4, patch_stride=2)
    apart.load_state_dict(over.state_dict())
    grid = tokens_of(over).unflatten(1, over.grid)
    assert over.grid == (3, 5)
    torch.testing.assert_close(grid[:, ::2, ::2].flatten(1, 2), tokens_of(apart))


def test_shifted_patches_add_the_papers_parameters():
    plain, shifted = create_model("paper"), create_model("paper", stem="shifted")
    assert shifted.num_params - plain.num_params == num_params(192, 4) - (48 * 192 + 192)


@pytest.mark.parametrize("stem", [name for name in STEMS if name != "patches"])
def test_whitening_is_for_patches_alone(stem):
    with pytest.raises(InputError, match=f"model.patch_init=whitening is for .* not model.stem={stem}"):
        ModelConfig(stem=stem, patch_init="whitening")


@pytest.mark.parametrize(("patch", "tokens"), [(2, 24), (4, 6), (8, 2)])
def test_the_convolutional_stem_equals_loops(patch, tokens):
    stem = stem_of("conv", patch_size=patch)
    weights = [convolution.weight.detach().numpy() for convolution in stem.convolutions]
    want = cct_tokenizer(IMAGES.numpy(), weights)
    assert want.shape == (2, tokens, 10) and stem.num_patches == tokens
    np.testing.assert_allclose(tokens_of(stem).detach(), want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [(15, 9), (8, 8)])
def test_the_convolutional_stem_takes_images_of_any_size(size):
    model = ViT(ModelConfig(stem="conv", width=8, num_heads=1, depth=1), image_size=size)
    assert model(torch.zeros(1, 3, *size)).shape == (1, 10)
    assert model.tokens.patches.grid == tuple(-(-side // 4) for side in size)


@pytest.mark.parametrize(("patch", "channels"), [(2, (3, 256)), (4, (3, 64, 256))])
def test_cct_7_has_the_published_number_of_parameters(patch, channels):
    """Apart from our biases of queries, keys and values: 3.76 M for CCT-7/3x1."""
    values = {"stem": "conv", "patch_size": patch, "width": 256, "depth": 7, "num_heads": 4, "pool": "attention"}
    model = create_model("paper", **values)
    assert model.num_params - 7 * 3 * 256 == cct_num_params(channels=channels)
    assert round(cct_num_params() / 1e6, 2) == 3.76


def test_ccts_pooling_equals_a_loop():
    model = ViT(ModelConfig(stem="conv", width=8, num_heads=1, depth=1, pool="attention"), image_size=(8, 8))
    tokens, score = torch.randn(2, 4, 8), model.pool.score
    with torch.no_grad():
        score.weight.mul_(50)
        score.bias.fill_(2.0)
        want = [sequence_pool(image.numpy(), score.weight[0].numpy(), 2.0) for image in tokens]
        np.testing.assert_allclose(model.pool(tokens), np.stack(want), rtol=1e-5, atol=1e-6)


def test_the_convolutional_stem_starts_as_ccts():
    weight = create_model("paper", stem="conv", width=256, num_heads=4, depth=1).tokens.patches.convolutions[1].weight
    assert weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.01)
    assert weight.abs().max() > 3.5 * weight.std(), "normal, not uniform"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"patch_size": 6}, "model.patch_size=6 is none of 2, 4, 8, 16 and 32, as model.stem=conv requires"),
        ({"patch_size": 1}, "model.patch_size=1 is none of"),
        ({"patch_stride": 2}, "model.patch_stride=2 has no effect with model.stem=conv"),
    ],
)
def test_what_the_convolutional_stem_cannot_do_is_refused(values, words):
    with pytest.raises(InputError, match=words):
        ModelConfig(stem="conv", **values)


def test_a_patch_of_one_pixel_cannot_be_shifted():
    with pytest.raises(InputError, match="model.patch_size=1 is less than the 2 that model.stem=shifted needs"):
        ModelConfig(stem="shifted", patch_size=1)
