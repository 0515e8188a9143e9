"""The oracles of attention and stems on cases that can be worked out by hand."""

import numpy as np
import torch
from neighbours.conv_stem import cct_num_params, cct_tokenizer, sequence_pool
from neighbours.linear_attention import linear_attention
from neighbours.locality_attention import locality_attention
from neighbours.shifted_patches import num_params, shifted, shifted_patch_tokens
from neighbours.sparse_attention import block_pairs, masked_attention, on_grid, strided_pairs, with_cls
from torch.nn import functional

RNG = np.random.default_rng(0)


def test_linear_attention_by_hand():
    q = np.array([[[1.0], [-np.log(2)]]])  # phi: 2, 1/2
    k = np.array([[[0.0], [2.0]]])  # phi: 1, 3
    v = np.array([[[4.0], [8.0]]])
    np.testing.assert_allclose(linear_attention(q, k, v), [[[7.0], [7.0]]])  # weights 1/4, 3/4
    two = linear_attention(np.array([[[1.0, 0.0]]]), np.array([[[0.0, 1.0]]]), np.array([[[5.0, 6.0]]]))
    np.testing.assert_allclose(two, [[[5.0, 6.0]]])
    q, k = np.array([[[1.0, 0.0]] * 2]), np.array([[[1.0, 0.0], [0.0, 2.0]]])  # phi(q) . phi(k): 4 + 1, 2 + 3
    np.testing.assert_allclose(linear_attention(q, k, v.repeat(2, axis=2)), np.full((1, 2, 2), 6.0))


def test_sparse_pairs_by_hand():
    assert [np.flatnonzero(row).tolist() for row in block_pairs(5, 3)] == [[0, 1, 2]] * 3 + [[3, 4]] * 2
    assert [np.flatnonzero(row).tolist() for row in strided_pairs(5, 2)] == [[0, 2, 4], [1, 3]] * 2 + [[0, 2, 4]]
    grid = on_grid(strided_pairs(3, 2), block_pairs(4, 2))  # rows 0 and 2, columns in twos
    assert np.flatnonzero(grid[1]).tolist() == [0, 1, 8, 9]
    assert np.flatnonzero(grid[6]).tolist() == [6, 7]
    seen = with_cls(grid, 2)
    assert seen[:2].all() and seen[:, :2].all() and np.array_equal(seen[2:, 2:], grid)


def test_masked_attention_is_softmax_over_what_is_seen():
    q, k, v = RNG.normal(size=(3, 2, 10, 4))
    seen = with_cls(on_grid(block_pairs(3, 2), strided_pairs(3, 2)), 1)
    scores = torch.tensor(q @ k.transpose(0, 2, 1) / 2).masked_fill(~torch.tensor(seen), -torch.inf)
    np.testing.assert_allclose(masked_attention(q, k, v, seen), scores.softmax(-1) @ torch.tensor(v), rtol=1e-12)


def test_locality_attention_by_hand():
    v = np.array([[[3.0], [7.0]]])
    np.testing.assert_allclose(locality_attention(v, v, v, 1.0), [[[7.0], [3.0]]])  # each sees only the other
    q, k = np.array([[[1.0], [0.0], [0.0]]]), np.array([[[9.0], [0.0], [np.log(3) * 2]]])
    v = np.array([[[100.0], [4.0], [8.0]]])
    np.testing.assert_allclose(locality_attention(q, k, v, 2.0)[0, 0], [7.0])  # weights 1 : 3, without itself


def test_shifted_patches_by_hand():
    image = np.arange(1.0, 5.0).reshape(1, 2, 2)
    assert shifted(image, -1, -1).tolist() == [[[4, 0], [0, 0]]], "to left-up"
    assert shifted(image, 1, -1).tolist() == [[[0, 0], [2, 0]]], "to left-down"
    flat = np.array([1, 2, 3, 4, 4, 0, 0, 0, 0, 3, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1.0])
    normed = (flat - 1.0) / flat.std()
    got = shifted_patch_tokens(image[None], 2, np.eye(20), np.zeros(20), eps=0)
    np.testing.assert_allclose(got, normed[None, None], atol=1e-12)
    assert num_params(192, 4) == 480 + 240 * 192 + 192


def test_cct_tokenizer_equals_torch_and_its_counts_are_the_papers():
    images, weights = RNG.normal(size=(2, 3, 8, 6)), [RNG.normal(size=(4, 3, 3, 3)), RNG.normal(size=(5, 4, 3, 3))]
    x = torch.tensor(images)
    for weight in weights:
        x = functional.max_pool2d(functional.conv2d(x, torch.tensor(weight), padding=1).relu(), 3, 2, 1)
    np.testing.assert_allclose(cct_tokenizer(images, weights), x.flatten(2).mT, rtol=1e-12)
    assert cct_num_params() == 3_760_139  # CCT-7/3x1: 3.76 M
    assert cct_num_params(channels=(3, 64, 256)) == 3_853_259  # CCT-7/3x2: 3.85 M


def test_sequence_pool_by_hand():
    tokens = np.array([[0.0, 8.0], [np.log(3), 4.0]])
    np.testing.assert_allclose(sequence_pool(tokens, np.array([1.0, 0.0]))[1], 5.0)  # weights 1 : 3
