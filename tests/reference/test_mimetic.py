"""Mimetic initialization: the products that the paper states, and nothing else changed."""

import numpy as np
import pytest
import torch
from neighbours.mimetic import assert_balanced, diagonal_and_spread, expected_query_key

from pocketvit.config import ModelConfig
from pocketvit.errors import InputError
from pocketvit.model import ViT

WIDTH, HEADS = 64, 4


def model_of(init: str, seed: int = 0, **values) -> ViT:
    config = ModelConfig(**{"init": init, "width": WIDTH, "num_heads": HEADS, "depth": 2} | values)
    return ViT(config, generator=torch.Generator().manual_seed(seed))


def weights_of(model: ViT, block: int) -> list[np.ndarray]:
    """W_Q, W_K and W_V of every head, (A, D, E) each, and W_O (D, D), for tokens as rows."""
    attn = model.blocks[block].attn
    heads = attn.qkv.weight.detach().unflatten(0, (3, HEADS, -1)).mT.double().numpy()  # (3, A, D, E)
    return [*heads, attn.proj.weight.detach().T.double().numpy()]


@pytest.mark.parametrize("attention", ["standard", "linear", "locality"])
def test_the_products_are_the_papers(attention):
    model = model_of("mimetic", attention=attention)
    diagonal, spread = expected_query_key(WIDTH, WIDTH // HEADS)
    products = []
    for block in (0, 1):
        q, k, v, o = weights_of(model, block)
        for head in range(HEADS):
            products.append(q[head] @ k[head].T)
            assert diagonal_and_spread(products[-1]) == pytest.approx((diagonal, spread), abs=0.06)
            assert_balanced(q[head], k[head].T, rtol=1e-4)
        joint = np.concatenate([*v], axis=1)  # (D, D)
        assert diagonal_and_spread(joint @ o) == pytest.approx((-0.4, 0.4), abs=0.04)
        assert_balanced(joint, o)
    for i, product in enumerate(products):
        for other in products[:i]:
            assert np.abs(product - other).max() > 0.1, "each head of each block has a draw of its own"


def test_all_else_starts_as_without():
    ours, plain = model_of("mimetic").state_dict(), model_of("normal").state_dict()
    changed = {name for name in plain if not torch.equal(ours[name], plain[name])}
    assert changed == {f"blocks.{i}.attn.{layer}.weight" for i in (0, 1) for layer in ("qkv", "proj")}


def test_one_generator_gives_one_model():
    first, again, other = (model_of("mimetic", seed).blocks[0].attn.qkv.weight for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.allclose(first, other)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"k_rank": 8}, "full rank, not model.k_rank=8"),
        ({"kv_rank_shared": 8}, "full rank, not model.kv_rank_shared=8"),
        ({"num_kv_heads": 2}, "not model.num_kv_heads=2"),
        ({"attention": "docs/examples/my_attention.py:MyAttention"}, "does not know the weights of model.attention="),
    ],
)
def test_other_projections_are_refused(values, words):
    with pytest.raises(InputError, match=f"model.init=mimetic .*{words}"):
        model_of("mimetic", **values)
