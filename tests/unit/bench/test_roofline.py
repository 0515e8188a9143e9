"""The counts behind the floors against closed formulas, and the clock's arithmetic."""

import pytest
import torch

from pocketvit.bench.clock import time_repeats
from pocketvit.bench.roofline import Rates, Work, flop_per_image, forward_work, measure_rates, training_work
from pocketvit.config import ModelConfig, override
from pocketvit.model import ViT, create_model
from pocketvit.recipes import recipe

CPU = torch.device("cpu")


def closed_formula(config: ModelConfig) -> tuple[int, int]:
    """Operations of a plain model with one CLS token on 32 × 32 images, forward and both ways."""
    N, D, M = (32 // config.patch_size) ** 2 + 1, config.width, config.hidden_width
    patches = 2 * N * D * 3 * config.patch_size**2  # a row of zeros in the place of the CLS token
    block = 2 * N * D * (4 * D + 2 * M) + 2 * (2 * N * N * D)  # linear layers; scores and weighted sum
    keys_and_values, query = 2 * N * D * 2 * D, 2 * D * D
    last = keys_and_values + query + 2 * (2 * N * D) + 2 * D * (D + 2 * M)  # of the CLS token alone
    forward = patches + (config.num_layers - 1) * block + last + 2 * D * 10
    return forward, 3 * forward - patches  # two products each for a backward pass, but none for the image


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"width": 96, "num_heads": 3},
        {"depth": 2, "patch_size": 8, "mlp_ratio": 3},
        {"depth": 2, "patch_size": 8, "block_repeats": 3},
    ],
)
def test_operations_equal_the_closed_formula(changes):
    model = create_model("paper", **changes)
    assert flop_per_image(model) == closed_formula(model.config)


def test_the_papers_model_takes_a_tenth_less_without_what_nobody_reads():
    assert flop_per_image(create_model("paper"))[1] == pytest.approx(1.03e9, rel=0.01)
    assert flop_per_image(create_model("paper", pool="mean"))[1] == pytest.approx(1.107e9, rel=0.01)


def dense(N: int, D: int, rows: int) -> int:
    """Operations of attention for so many queries: scores and weighted sum."""
    return 2 * (2 * rows * N * D)


def linear(N: int, D: int, E: int, rows: int) -> int:
    """Sums over the keys, what the queries read of them, and its weight."""
    return 2 * N * D * E + 2 * rows * D * E + 2 * rows * D


N, D, E, DEPTH = 65, 48, 12, 2
PATCHES = 2 * N * D * 48
SPARSE = 4 * dense(17, D, 17) + dense(N, D, 1) - dense(N, D, N)  # four groups of 16 patches and the CLS token
LINEAR = sum(linear(N, D, E, rows) - dense(N, D, rows) for rows in (N, 1))
CONV_1, CONV_2 = 2 * 9 * 3 * 64 * 32**2, 2 * 9 * 64 * D * 16**2
MORE, MLP = 9, 2 * 2 * D * 2 * D
PER_CLASS = 2 * MORE * D * 48 + MORE * (2 * 4 * D * D + MLP) + dense(N + MORE, D, N + MORE) - dense(N, D, N)
PER_CLASS += MORE * (2 * 4 * D * D + MLP) + dense(N + MORE, D, 1 + MORE) - dense(N, D, 1)
DEPTHWISE = 2 * 9 * D * (N - 1)
OTHERS = {
    "linear": ({"attention": "linear"}, LINEAR, 3 * LINEAR),
    "sparse": ({"attention": "sparse"}, SPARSE, 3 * SPARSE),
    "locality": ({"attention": "locality"}, 0, 0),
    "shifted": ({"stem": "shifted"}, 4 * PATCHES, 3 * 5 * PATCHES - 2 * PATCHES),  # patches now need a gradient
    "conv": ({"stem": "conv"}, CONV_1 + CONV_2 - PATCHES, 2 * CONV_1 + 3 * CONV_2 - 2 * PATCHES),
    "cls_per_class": ({"pool": "cls_per_class"}, PER_CLASS, 3 * PER_CLASS - 2 * MORE * D * 48),
    "depthwise": ({"depthwise": 3}, DEPTH * DEPTHWISE, 3 * DEPTH * DEPTHWISE),
}
"""Parts of other papers, and how many operations they add to a forward pass and to one with backward."""


@pytest.mark.parametrize("name", OTHERS)
def test_operations_of_other_parts(name):
    changes, *more = OTHERS[name]
    plain, other = (create_model("paper", width=D, num_heads=D // E, depth=DEPTH, **c) for c in ({}, changes))
    assert [after - before for after, before in zip(flop_per_image(other), flop_per_image(plain), strict=True)] == more


@pytest.mark.parametrize(("optimizer", "moments", "depth"), [("adamw", 2, 9), ("lion", 1, 9), ("adamw", 2, 3)])
def test_bytes_of_a_step(optimizer, moments, depth):
    """With fewer blocks, each applied more often, only the weights are fewer."""
    model = {"model.depth": depth, "model.block_repeats": 9 // depth}
    config = override(recipe("paper"), {"batch_size": 32, "optim.name": optimizer} | model)
    model = ViT(config.model)
    images, stream = 32 * 3 * 32 * 32, 9 * 32 * 65 * 192
    weights = 4 * 2 * model.num_params * (2 + moments)
    assert training_work(config, model, bf16=True).num_bytes == images + weights + 2 * 2 * stream
    assert training_work(config, model, bf16=False).num_bytes == images + weights + 2 * 4 * stream


def test_a_forward_pass_is_counted_per_batch():
    model = create_model("paper", depth=1)
    work = forward_work(model, 8)
    assert work.flop == 8 * flop_per_image(model)[0]
    assert work.num_bytes == 4 * (8 * 3 * 32 * 32 + model.num_params)


def test_floors_are_work_over_rates():
    assert Work(flop=6e9, num_bytes=1e9).limits_s(Rates(matrix_flop_per_s=3e9, copy_bytes_per_s=4e9)) == (2, 0.25)


def test_measured_rates_are_those_of_a_processor(monkeypatch):
    monkeypatch.setattr("pocketvit.bench.roofline.MATRIX_SIZE", {"cpu": 256})
    monkeypatch.setattr("pocketvit.bench.roofline.COPY_BYTES", {"cpu": 2**22})
    rates = measure_rates(CPU, torch.float32)
    assert 1e8 < rates.matrix_flop_per_s < 1e14
    assert 1e7 < rates.copy_bytes_per_s < 1e13


def test_the_first_run_is_not_timed():
    runs = []
    timing = time_repeats(lambda: runs.append(1), CPU, 4)
    assert len(runs) == 5 and len(timing.seconds) == 4
    assert all(seconds > 0 for seconds in timing.seconds)
