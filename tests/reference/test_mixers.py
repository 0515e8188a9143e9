"""The token mixers of other papers against plain float64 functions written from the papers."""

import numpy as np
import pytest
import torch
from neighbours.linear_attention import linear_attention
from neighbours.locality_attention import locality_attention
from neighbours.sparse_attention import block_pairs, masked_attention, on_grid, strided_pairs, with_cls
from torch import Tensor

from pocketvit.config import ModelConfig, override
from pocketvit.errors import InputError
from pocketvit.model.mixers import MIXERS
from pocketvit.model.mixers.standard import Attention
from pocketvit.model.positions import RotaryPositions, arranged
from pocketvit.recipes import recipe

WIDTH, HEADS = 24, 4
FORMS = {
    "plain": {},
    "grouped": {"num_kv_heads": 2},
    "multi-query": {"num_kv_heads": 1},
    "low rank": {"q_rank": 8, "kv_rank_shared": 8},
    "normed": {"qk_norm": True},
}


def mixer_of(name: str, **values) -> Attention:
    """A mixer in float64 with weights large enough to matter."""
    config = ModelConfig(**{"width": WIDTH, "num_heads": HEADS, "depth": 1, "attention": name} | values)
    rotary = RotaryPositions((3, 4), 1, config.head_dim) if config.positions == "rope" else None
    mixer, generator = MIXERS[name](config, rotary).double(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return mixer


def tokens_of(num_tokens: int) -> Tensor:
    return torch.randn(2, num_tokens, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def heads_of(mixer: Attention, tokens: Tensor) -> list[np.ndarray]:
    """Queries, keys and values, each (B, A, N, E); tests/reference/test_attention_forms.py checks the projections."""
    q, k, v = mixer.project(tokens, None)
    if mixer.q_norm is not None:
        q, k = mixer.q_norm(q), mixer.k_norm(k)
    return [x.repeat_interleave(HEADS // x.shape[1], dim=1).detach().numpy() for x in (q, k, v)]


def joined(mixer: Attention, heads: list[np.ndarray]) -> Tensor:
    """The heads (B, A, N, E) through the last projection."""
    return mixer.proj(torch.from_numpy(np.stack(heads)).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("form", FORMS)
def test_linear_attention_equals_explicit_sums(form):
    mixer, tokens = mixer_of("linear", **FORMS[form]), tokens_of(13)
    want = joined(mixer, [linear_attention(*image) for image in zip(*heads_of(mixer, tokens), strict=True)])
    torch.testing.assert_close(mixer(tokens), want, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(mixer(tokens, 3), want[:, :3], rtol=1e-10, atol=1e-10)


def test_rotated_features_tell_relative_places_and_weigh_as_plain_ones():
    """With one query and one key everywhere; each value is 1 in a channel of its own, so that channels are weights."""
    mixer = mixer_of("linear", positions="rope", width=48)
    q, k = (torch.randn(12, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in (0, 1))
    values = torch.eye(13, dtype=torch.float64)[:, 1:]  # the CLS token has none
    weights = (
        mixer.mix(*(x.expand(1, 1, 13, 12) for x in (q, k, values)))[0, 0, 1:].unflatten(0, (3, 4)).unflatten(2, (3, 4))
    )
    torch.testing.assert_close(weights[0, 0, 1, 1], weights[1, 2, 2, 3], rtol=1e-5, atol=0)
    torch.testing.assert_close(weights[1, 1, 1, 1], weights.new_tensor(1 / 13), rtol=1e-5, atol=0)
    assert (weights[0, 0, 1, 1] - weights[0, 0, 1, 2]).abs() > 1e-4


@pytest.mark.parametrize("far", [-20.0, -1e4])
def test_features_far_below_zero_are_not_rounded_to_zero(far):
    mixer, low = mixer_of("linear").float(), torch.full((1, HEADS, 5, 6), far)
    values = torch.arange(5.0)[None, None, :, None].expand(1, HEADS, 5, 6)
    torch.testing.assert_close(mixer.mix(low, low, values), torch.full((1, HEADS, 5, 6), 2.0))


@pytest.mark.parametrize("form", FORMS)
def test_locality_attention_equals_explicit_sums_over_the_others(form):
    mixer, tokens = mixer_of("locality", **FORMS[form]), tokens_of(13)
    assert mixer.scale.detach().std() > 0.1, "the heads differ"
    images = zip(*heads_of(mixer, tokens), strict=True)
    temperature = (1 / mixer.scale).detach().numpy()
    want = joined(mixer, [locality_attention(*image, temperature) for image in images])
    torch.testing.assert_close(mixer(tokens), want, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(mixer(tokens, 3), want[:, :3], rtol=1e-9, atol=1e-9)


def test_locality_attention_starts_at_the_plain_temperature_and_a_single_token_reads_itself():
    config = ModelConfig(width=WIDTH, num_heads=HEADS, depth=1, attention="locality")
    mixer = MIXERS["locality"](config)
    torch.testing.assert_close(mixer.scale, torch.full((HEADS, 1, 1), (WIDTH / HEADS) ** -0.5))
    q, k, v = mixer.project(tokens_of(1).float(), None)
    torch.testing.assert_close(mixer.mix(q, k, v), v)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("grid", "window", "special"), [((4, 4), (2, 2), 1), ((4, 6), (2, 3), 2), ((3, 8), (3, 4), 0)])
def test_sparse_attention_equals_a_masked_softmax(form, grid, window, special):
    height, width = grid
    mixer, tokens = mixer_of("sparse", **FORMS[form]), tokens_of(special + height * width)
    arranged(mixer, grid, special)
    assert mixer.window == window
    stride = [side // part for side, part in zip(grid, window, strict=True)]
    local = on_grid(block_pairs(height, window[0]), block_pairs(width, window[1]))
    strided = on_grid(strided_pairs(height, stride[0]), strided_pairs(width, stride[1]))
    seen = np.stack([with_cls(pairs, special) for pairs in (local, local, strided, strided)])
    want = joined(mixer, [masked_attention(*image, seen) for image in zip(*heads_of(mixer, tokens), strict=True)])
    torch.testing.assert_close(mixer(tokens), want, rtol=1e-9, atol=1e-9)
    for taken in (1, special + 3):
        torch.testing.assert_close(mixer(tokens, taken), want[:, :taken], rtol=1e-9, atol=1e-9)


def test_every_patch_reaches_every_other_in_two_sparse_blocks():
    mixer = mixer_of("sparse")
    for side in (4, 6, 8, 12, 15, 16, 32):
        arranged(mixer, (side, side), 1)
        (w, _), (s, _) = mixer.window, mixer.count
        assert w * s == side and w >= s > 1
        local, strided = block_pairs(side, w), strided_pairs(side, s)
        assert (local.astype(int) @ strided > 0).all()


@pytest.mark.parametrize("grid", [(7, 7), (2, 3), (1, 2)])
def test_patches_that_windows_cannot_divide_are_refused(grid):
    with pytest.raises(InputError, match=f"model.attention=sparse cannot divide {grid[0]} × {grid[1]} patches"):
        arranged(mixer_of("sparse"), grid, 1)


def test_sparse_attention_refuses_one_head_and_some_of_the_patches():
    with pytest.raises(InputError, match="model.num_heads=1 is too few for model.attention=sparse"):
        ModelConfig(attention="sparse", num_heads=1)
    with pytest.raises(InputError, match="model.patch_drop=0.5 cannot be combined with model.attention=sparse"):
        override(recipe("paper"), {"model.attention": "sparse", "model.patch_drop": 0.5})
