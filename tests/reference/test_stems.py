"""The stems of other papers against plain float64 functions written from the papers."""

import numpy as np
import pytest
import torch
from neighbours.shifted_patches import num_params, shifted_patch_tokens
from torch import nn

from pocketvit.config import ModelConfig
from pocketvit.errors import InputError
from pocketvit.model import create_model
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


def test_a_patch_of_one_pixel_cannot_be_shifted():
    with pytest.raises(InputError, match="model.patch_size=1 is less than the 2 that model.stem=shifted needs"):
        ModelConfig(stem="shifted", patch_size=1)
