"""SOAP-Muon against the oracle of another hand, in float64 and with exact eigenvectors."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from neighbours import soap_muon
from neighbours.cautious_decay import muon_step
from torch import nn

from pocketvit.config import OptimConfig
from pocketvit.errors import InputError
from pocketvit.optim.soap_muon import SOAPMuon, turned

CHOICES = {"second_moment_of": "momentum", "sees_own_gradient": False}
"""What modded-nanogpt's code does where its text leaves it open."""


def turned_once(factor: np.ndarray, old: np.ndarray | None) -> np.ndarray:
    """Our way to a basis as one of the oracle's."""
    start = np.eye(len(factor)) if old is None else old
    return turned(torch.tensor(start)[None], torch.tensor(factor)[None])[0].numpy()


def turned_in_pieces(side: int) -> Callable[[np.ndarray, np.ndarray | None], np.ndarray]:
    """The same, each piece of a side by itself."""

    def turn(factor: np.ndarray, old: np.ndarray | None) -> np.ndarray:
        basis = np.zeros_like(factor)
        for at in range(0, len(factor), side):
            piece = np.s_[at : at + side, at : at + side]
            basis[piece] = turned_once(factor[piece], None if old is None else old[piece])
        return basis

    return turn


def gradients(shape: tuple[int, int], steps: int) -> list[np.ndarray]:
    """Random matrices with entries of unlike sizes in a basis of their own."""
    rng = np.random.default_rng(sum(shape))
    left, right = (np.linalg.qr(rng.normal(size=(side, side)))[0] for side in shape)
    sizes = np.outer(*(np.logspace(0, -1.5, side) for side in shape))
    return [left @ (sizes * rng.normal(size=shape)) @ right for _ in range(steps)]


def steps_of(optimizer: SOAPMuon, params: list[nn.Parameter], grads: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    """How far each parameter is moved in each step."""
    moves = []
    for step in range(len(grads[0])):
        before = [param.detach().clone() for param in params]
        for param, of_param in zip(params, grads, strict=True):
            param.grad = torch.tensor(of_param[step], dtype=param.dtype)
        optimizer.step()
        moves.append([(param.detach() - old).numpy() for param, old in zip(params, before, strict=True)])
    return moves


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("cautious", [False, True])
@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("shape", [(6, 4), (3, 8), (5, 5)])
def test_a_step_equals_the_oracle(shape, nesterov, adjust, cautious):
    given = {"momentum": 0.8, "nesterov": nesterov}
    parameter = nn.Parameter(torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    optimizer = SOAPMuon([parameter], lr=0.1, beta=0.7, weight_decay=0.5, adjust_lr_fn=adjust, cautious=cautious,
                         ns_dtype=torch.float64, **given)  # fmt: skip
    first, *grads = gradients(shape, 6)
    steps_of(optimizer, [parameter], [[first]])
    held = {name: tensor.numpy().copy() for name, tensor in optimizer.state[parameter].items()}
    names = {"m": "momentum_buffer", "v": "exp_avg_sq", "L": "row_gram", "R": "column_gram"}
    state = {"step": 1, **{ours: held[theirs] for ours, theirs in names.items()}}
    state |= {"Qr": held["row_turn"] + np.eye(shape[0]), "Qc": held["column_turn"] + np.eye(shape[1])}
    wanted = parameter.detach().numpy().copy()
    for grad in grads:
        steps_of(optimizer, [parameter], [[grad]])
        wanted = soap_muon.soap_muon_step(
            wanted, grad, state, 0.1, beta2=0.7, shampoo_beta=0.7, decay=0.5, adjust=adjust, cautious=cautious,
            basis=turned_once, **CHOICES, **given,
        )  # fmt: skip
        np.testing.assert_allclose(parameter.detach().numpy(), wanted, atol=1e-6)


@pytest.mark.parametrize(("shape", "side"), [((12, 4), 4), ((3, 9), 3), ((5, 5), 5)])
def test_a_step_in_blocks_equals_the_oracle(shape, side):
    """In float64; from the second step on, from bases that are zero between pieces of a side."""
    parameter = nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    optimizer = SOAPMuon([parameter], lr=0.1, beta=0.7, ns_dtype=torch.float64, blocks=True)
    first, *grads = gradients(shape, 6)
    steps_of(optimizer, [parameter], [[first]])
    held = optimizer.state[parameter]
    state = {"step": 1, "m": held["momentum_buffer"].numpy().copy(), "v": held["exp_avg_sq"].numpy().copy()}
    state |= {"L": 0.3 * first @ first.T, "R": 0.3 * first.T @ first}
    state |= {f"Q{name}": turned_in_pieces(side)(state[of], None) for name, of in (("r", "L"), ("c", "R"))}
    wanted = parameter.detach().numpy().copy()
    for grad in grads:
        steps_of(optimizer, [parameter], [[grad]])
        wanted = soap_muon.soap_muon_step(
            wanted, grad, state, 0.1, beta2=0.7, shampoo_beta=0.7, basis=turned_in_pieces(side), **CHOICES
        )
        np.testing.assert_allclose(parameter.detach().numpy(), wanted, atol=1e-6)


def test_sides_that_do_not_divide_stay_whole():
    grads = gradients((6, 4), 5)
    whole, blocks = (nn.Parameter(torch.zeros(6, 4)) for _ in range(2))
    steps_of(SOAPMuon([whole]), [whole], [grads])
    steps_of(SOAPMuon([blocks], blocks=True), [blocks], [grads])
    assert torch.equal(whole, blocks)


def test_soon_its_steps_are_those_of_exact_eigenvectors():
    grads = gradients((12, 8), 150)
    parameter = nn.Parameter(torch.zeros(12, 8))
    moves = [move for (move,) in steps_of(SOAPMuon([parameter], lr=1.0), [parameter], [grads])]
    weights = {name: np.zeros((12, 8)) for name in ("exact", "qr", "muon")}
    states: dict[str, dict] = {name: {} for name in weights}
    bases = {"exact": soap_muon.eigenbasis, "qr": soap_muon.qr_basis}
    found: dict[str, list[float]] = {name: [] for name in weights}
    for grad, move in zip(grads, moves, strict=True):
        for name, weight in weights.items():
            if name == "muon":
                new = muon_step(weight, grad, states[name], 1.0)
            else:
                new = soap_muon.soap_muon_step(weight, grad, states[name], 1.0, basis=bases[name], **CHOICES)
            found[name].append(cosine(move, new - weight))
            weights[name] = new
    likeness = {name: np.mean(values[100:]) for name, values in found.items()}
    assert likeness["exact"] > 0.97 and likeness["qr"] > 0.97
    assert likeness["muon"] < 0.9


@pytest.mark.parametrize("side", [2, 7, 48])
def test_bases_turn_to_the_eigenvectors(side):
    rng = np.random.default_rng(side)
    vectors = np.linalg.qr(rng.normal(size=(side, side)))[0]
    factor = vectors @ np.diag(np.logspace(0, -2, side)) @ vectors.T
    basis = None
    for _ in range(200):
        basis = turned_once(factor, basis)
    exact = soap_muon.eigenbasis(factor, None)
    np.testing.assert_allclose(np.sort(abs(exact.T @ basis).max(axis=0)), np.ones(side), atol=1e-6)
    np.testing.assert_allclose(basis.T @ basis, np.eye(side), atol=1e-12)


def test_bases_stay_orthogonal_and_finite_whatever_the_factors():
    generator = torch.Generator().manual_seed(0)
    basis = torch.eye(6).repeat(3, 1, 1)
    for step in range(300):
        g = torch.randn(3, 6, 2, generator=generator) * 10.0 ** (step % 7 - 3)  # of rank 2, of all sizes
        basis = turned(basis, g @ g.mT * torch.tensor([0.0, 1e-30, 1.0])[:, None, None])
    torch.testing.assert_close(basis.mT @ basis, torch.eye(6).repeat(3, 1, 1), atol=1e-5, rtol=0)
    assert torch.equal(basis[0], torch.eye(6)) or torch.allclose(basis[0], torch.eye(6), atol=1e-6)


def test_matrices_of_one_shape_do_not_touch_each_other():
    shapes = [(6, 4), (4, 6), (6, 4), (5, 5)]
    grads = [gradients(shape, 5) for shape in shapes]
    grads[2] = grads[2][::-1]
    together, apart = ([nn.Parameter(torch.zeros(shape)) for shape in shapes] for _ in range(2))
    steps_of(SOAPMuon(together, lr=0.1), together, grads)
    for param, of_param in zip(apart, grads, strict=True):
        steps_of(SOAPMuon([param], lr=0.1), [param], [of_param])
    for a, b in zip(together, apart, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_blocks_are_refused_with_other_optimizers():
    with pytest.raises(InputError, match="optim.soap_blocks=True has no effect with optim.name=muon; use soap_muon"):
        OptimConfig(name="muon", soap_blocks=True)
