"""The oracles of optimizers and augmentation on cases that can be worked out by hand, or against torch and timm."""

import numpy as np
import pytest
import torch
from neighbours import cautious_decay, flips, patch_dropout, resize, soap_muon
from neighbours.tail_average import tail_average
from timm.layers import resample_abs_pos_embed
from torch.nn import functional

RNG = np.random.default_rng(0)


def test_only_aligned_entries_decay():
    weight, update = np.array([2.0, 2.0, -2.0, -2.0, 2.0]), np.array([1.0, -1.0, 1.0, -1.0, 0.0])
    got = cautious_decay.decayed(weight, update, lr=0.1, decay=0.5)
    np.testing.assert_allclose(got, [1.8, 2.1, -2.1, -1.8, 1.9])
    plain = cautious_decay.decayed(weight, update, lr=0.1, decay=0.5, cautious=False)
    np.testing.assert_allclose(plain, [1.8, 2.0, -2.0, -1.8, 1.9])


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_plain_steps_are_torchs(name):
    param = torch.nn.Parameter(torch.tensor(RNG.normal(size=(6, 4))))
    weight, state = param.detach().numpy().copy(), {}
    if name == "adamw":
        theirs = torch.optim.AdamW([param], lr=0.01, betas=(0.9, 0.99), weight_decay=0.3)
    else:
        theirs = torch.optim.Muon([param], lr=0.01, momentum=0.9, weight_decay=0.3, adjust_lr_fn="original")
    for _ in range(4):
        grad = RNG.normal(size=(6, 4))
        param.grad = torch.tensor(grad)
        theirs.step()
        if name == "adamw":
            weight = cautious_decay.adamw_step(weight, grad, state, 0.01, (0.9, 0.99), decay=0.3, cautious=False)
        else:
            weight = cautious_decay.muon_step(weight, grad, state, 0.01, 0.9, decay=0.3, cautious=False)
    atol = 1e-9 if name == "adamw" else 2e-3  # torch's Muon rounds to bfloat16
    np.testing.assert_allclose(param.detach().numpy(), weight, rtol=0, atol=atol)


def test_lion_by_hand():
    weight, state = np.array([1.0, -1.0]), {}
    weight = cautious_decay.lion_step(weight, np.array([3.0, 3.0]), state, lr=0.1, decay=1.0)
    np.testing.assert_allclose(weight, [0.8, -1.1])  # the second moves away from zero and does not decay
    weight = cautious_decay.lion_step(weight, np.array([-0.2, 1.0]), state, lr=0.1)
    np.testing.assert_allclose(weight, [0.7, -1.2])  # 0.9 * 0.03 - 0.1 * 0.2 > 0: the momentum decides


def test_tail_average_by_hand():
    weights = [np.array([x]) for x in (9.0, 1.0, 3.0, 6.0)]
    assert tail_average(weights, start=1, tau=2, share=0.5) == (0.5 * 6 + 0.5 * 4)  # 1, 2, 4
    assert tail_average(weights, start=3, tau=2, share=0.7) == pytest.approx(6.0)


def test_soap_muon_of_a_diagonal_gradient():
    """Diagonal gradients are their own eigenbasis: each entry is divided by its root mean square, then made orthogonal."""
    grad, state = np.diag([4.0, 1.0, 0.25]), {}
    weight = soap_muon.soap_muon_step(np.zeros((3, 3)), grad, state, lr=1.0, beta2=0.0, eps=1e-12)
    np.testing.assert_allclose(weight, -cautious_decay.orthogonalized(np.eye(3)), atol=1e-6)
    muons = cautious_decay.muon_step(np.zeros((3, 3)), grad, {}, lr=1.0)
    assert abs(muons - weight).max() > 0.05, "Muon's five steps leave the singular values apart"


def test_soap_muon_turns_with_its_gradients():
    """Whatever the rotation of rows and columns, the steps are the same, rotated: V lives in the gradients' own basis."""
    left, right = (np.linalg.qr(RNG.normal(size=(n, n)))[0] for n in (4, 3))
    plain, turned = np.zeros((4, 3)), np.zeros((4, 3))
    states = {}, {}
    for step in range(4):
        grad = RNG.normal(size=(4, 3))
        kwargs = {"lr": 0.1, "every": 2, "sees_own_gradient": step % 2 == 0, "shampoo_beta": 0.6}
        plain = soap_muon.soap_muon_step(plain, grad, states[0], **kwargs)
        turned = soap_muon.soap_muon_step(turned, left @ grad @ right, states[1], **kwargs)
        np.testing.assert_allclose(left @ plain @ right, turned, atol=1e-8)


def test_alternating_flips_by_hand():
    first = np.array([True, False, False])
    passes = [flips.alternating_flip(first, number).tolist() for number in range(4)]
    assert passes == [[True, False, False], [False, True, True]] * 2
    half = RNG.random(1000) < 0.5
    flips.assert_alternates(np.stack([half, ~half, half]))
    with pytest.raises(AssertionError):
        flips.assert_alternates(np.stack([half, half]))


def test_flip_average_is_blind_to_mirrors():
    images, weight = RNG.normal(size=(2, 3, 4, 5)), RNG.normal(size=(60, 7))

    def model(batch):
        return np.tanh(batch.reshape(len(batch), -1) @ weight)

    got = flips.flip_average(model, images)
    np.testing.assert_allclose(got, flips.flip_average(model, images[..., ::-1]))
    assert abs(got - model(images)).max() > 0.1


def test_patch_dropout_keeps_the_front():
    tokens = np.arange(6.0).reshape(1, 6, 1)
    assert patch_dropout.patch_dropout(tokens, np.array([[3, 0]]), 2)[0, :, 0].tolist() == [0, 1, 5, 2]
    assert [patch_dropout.num_kept(64, prob) for prob in (0.25, 0.5, 0.99)] == [48, 32, 1]
    draws = np.argsort(RNG.random((2000, 8)), axis=1)
    patch_dropout.assert_random_subsets(draws[:, :6], 8, 0.25)
    with pytest.raises(AssertionError):
        patch_dropout.assert_random_subsets(np.sort(draws, axis=1)[:, :6], 8, 0.25)


@pytest.mark.parametrize("size", [(24, 20), (13, 32), (40, 33)])
@pytest.mark.parametrize("kernel", ["bicubic", "bilinear"])
def test_resize_equals_torch(kernel, size):
    images = RNG.normal(size=(2, 3, 32, 28))
    want = functional.interpolate(torch.tensor(images), size=size, mode=kernel, antialias=True)
    np.testing.assert_allclose(resize.resize(images, *size, kernel), want.numpy(), atol=1e-12)


@pytest.mark.parametrize("new", [(6, 6), (5, 9), (12, 12)])
def test_resized_positions_equal_timms(new):
    table = RNG.normal(size=(2 + 64, 5))
    want = resample_abs_pos_embed(torch.tensor(table)[None], list(new), [8, 8], num_prefix_tokens=2)[0]
    np.testing.assert_allclose(resize.resized_positions(table, (8, 8), new, 2), want.numpy(), atol=1e-5)
