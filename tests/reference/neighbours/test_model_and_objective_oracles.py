"""The oracles of parts of the model and of objectives on cases that can be worked out by hand."""

import numpy as np
import pytest
import torch
from neighbours import cls_per_class, depthwise, dino, drloc, mae, mimetic
from neighbours.distillation import deit_hard_distillation, fused_probabilities
from torch.nn import functional

RNG = np.random.default_rng(0)


def test_depthwise_convolution_equals_torchs():
    x, weight, bias = RNG.normal(size=(1 + 12, 5)), RNG.normal(size=(5, 1, 3, 3)), RNG.normal(size=5)
    grid = torch.tensor(x[1:].T.reshape(1, 5, 3, 4))
    want = functional.conv2d(grid, torch.tensor(weight), torch.tensor(bias), padding=1, groups=5)[0].flatten(1).T
    got = depthwise.depthwise_beside_block(x, lambda tokens: 2 * tokens, weight, bias, 3, 4)
    np.testing.assert_allclose(got[1:], 2 * x[1:] + want.numpy(), rtol=1e-12)
    np.testing.assert_array_equal(got[0], 2 * x[0])
    assert depthwise.num_params(192, 9) == 17_280


def test_cls_per_class_reads_its_own_token():
    tokens = np.array([[[1.0, 3.0], [5.0, -5.0]]])
    assert cls_per_class.cls_per_class_logits(tokens).tolist() == [[2.0, 0.0]]
    weight, bias = np.array([[1.0, 2.0], [0.5, 0.0]]), np.array([0.0, 1.0])
    assert cls_per_class.cls_per_class_dot_logits(tokens, weight, bias).tolist() == [[7.0, 3.5]]


def test_a_layer_norm_before_the_mean_leaves_nothing():
    for token in RNG.normal(size=(3, 8)):
        assert abs(cls_per_class.normed_mean(token, np.ones(8), np.zeros(8))) < 1e-12
    assert abs(cls_per_class.normed_mean(RNG.normal(size=8), np.arange(8.0), np.zeros(8))) > 1e-3


def test_mimetic_factors_make_the_targets():
    z = mimetic.draw(RNG, 64)
    target = mimetic.value_projection_target(z)
    a, b = mimetic.factors(target, 64)
    np.testing.assert_allclose(a @ b, target, atol=1e-12)
    mimetic.assert_balanced(a, b)
    diagonal, spread = mimetic.diagonal_and_spread(a @ b)
    assert diagonal == pytest.approx(-0.4, abs=0.03)
    assert spread == pytest.approx(0.4, abs=0.03)
    target = mimetic.query_key_target(z)
    a, b = mimetic.factors(target, 16)
    cut = np.linalg.svd(target, compute_uv=False)[16:]
    assert np.linalg.norm(target - a @ b) == pytest.approx(np.sqrt((cut**2).sum()))
    diagonal, spread = mimetic.expected_query_key(64, 16)
    assert 0.2 < diagonal < 0.7
    assert mimetic.diagonal_and_spread(a @ b) == pytest.approx((diagonal, spread), abs=0.05)
    with pytest.raises(AssertionError):
        mimetic.assert_balanced(2 * a, b / 2)


def test_drloc_by_hand():
    grids = np.arange(8.0).reshape(1, 2, 4, 1)
    pairs = np.array([[[[0, 0], [1, 3]], [[1, 1], [1, 1]]]])
    first, last = [np.eye(2), np.zeros(2)], [np.array([[0.0, 0.1], [1.0, 0.0]]), np.array([0.0, 0.0])]
    # tokens 0 and 7: (0.7, 0) for (1/2, 3/4); tokens 5 and 5: (0.5, 5) for (0, 0)
    loss = drloc.drloc_loss(grids, pairs, [first[0], last[0]], [first[1], last[1]])
    assert loss == pytest.approx((0.2 + 0.75 + 5.5) / 2)
    assert drloc.drloc_loss(grids, pairs, [-first[0], last[0]], [first[1], last[1]]) == pytest.approx(1.25 / 2)


def test_hard_distillation_by_hand():
    own, distilled = np.log([[0.5, 0.25, 0.25]]), np.log([[0.1, 0.1, 0.8]])
    loss = deit_hard_distillation(own, distilled, np.array([[0.5, 0.5, 0.0]]), np.array([[3.0, 9.0, 1.0]]))
    assert loss == pytest.approx(0.5 * -(np.log(0.5) + np.log(0.25)) / 2 + 0.5 * -np.log(0.1))
    np.testing.assert_allclose(fused_probabilities(own, distilled), [[0.3, 0.175, 0.525]])


def test_mae_by_hand():
    images = np.arange(16.0).reshape(1, 1, 4, 4)
    assert mae.patchify(images, 2)[0, 1].tolist() == [2, 3, 6, 7]
    predicted = np.zeros((1, 4, 4))
    hidden = np.array([[True, False, False, True]])
    plain = (0 + 1 + 16 + 25 + 100 + 121 + 196 + 225) / 8
    assert mae.mae_loss(images, predicted, hidden, 2, normalize=False) == pytest.approx(plain)
    assert mae.mae_loss(images, predicted, hidden, 2, eps=0) == pytest.approx(3 / 4)  # (n - 1) / n
    assert mae.mae_loss(images, predicted, hidden, 2, eps=0, unbiased=False) == pytest.approx(1)
    assert mae.num_kept(64, 0.75) == 16


def test_dino_by_hand():
    views = np.log(np.array([[[1.0, 3.0]], [[1.0, 1.0]], [[3.0, 1.0]]]))
    loss = dino.dino_loss(views, views[:2], np.log([1.0, 3.0]), student_temperature=1, teacher_temperature=0.5)
    quarter, half = np.log(1 / 4), np.log(1 / 2)
    # teacher 0, centred: (1/2, 1/2); teacher 1: (9/10, 1/10); each meets the two views that are not its own
    terms = [-half, -(quarter + np.log(3 / 4)) / 2, -(0.9 * quarter + 0.1 * np.log(3 / 4))]
    terms += [-(0.9 * np.log(3 / 4) + 0.1 * quarter)]
    assert loss == pytest.approx(np.mean(terms))
    center = dino.update_center(np.array([1.0, 0.0]), np.array([[[2.0, 4.0]], [[4.0, 0.0]]]))
    np.testing.assert_allclose(center, [1.2, 0.2])
    assert [dino.teacher_momentum(step, 10) for step in (0, 5, 10)] == pytest.approx([0.996, 0.998, 1.0])
    np.testing.assert_allclose(
        dino.head_output(np.array([[3.0, 4.0]]), np.array([[0.0, 2.0], [5.0, 0.0]])), [[0.8, 0.6]]
    )
