"""Training on smaller images first: resizing against the oracle of another hand, and which passes see which size."""

import numpy as np
import pytest
import torch
from neighbours import resize

from pocketvit.config import ModelConfig, RunConfig, override
from pocketvit.data import Split, Splits
from pocketvit.errors import InputError
from pocketvit.model import ViT
from pocketvit.model.resize import grid_matrix, resize_matrix
from pocketvit.recipes import recipe
from pocketvit.training.progress import SilentReporter
from pocketvit.training.trainer import Trainer

RNG = np.random.default_rng(0)
B, STEPS = 8, 3


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("before", "after"), [(32, 24), (32, 5), (8, 6), (7, 7), (5, 9)])
def test_matrices_equal_the_oracles(before, after, kernel):
    wanted = resize.resize_matrix(before, after, kernel)
    np.testing.assert_allclose(resize_matrix(before, after, kernel).numpy(), wanted, atol=1e-6)


def test_a_grids_matrix_is_that_of_both_axes():
    grid = RNG.normal(size=(4, 6))
    found = grid_matrix((4, 6), (3, 5), "bicubic").numpy() @ grid.reshape(-1)
    np.testing.assert_allclose(found.reshape(3, 5), resize.resize(grid, 3, 5), atol=1e-6)


def model_of(size: int, **values) -> ViT:
    config = ModelConfig(width=24, depth=2, num_heads=2, **values)
    return ViT(config, image_size=(size, size), num_classes=3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "values",
    [
        {"num_cls_tokens": 2, "num_registers": 1},
        {"pool": "mean", "patch_size": 8, "patch_stride": 4},
        {"stem": "shifted"},
        {"stem": "conv"},
        {"pool": "attention", "positions": "none"},
    ],
    ids=str,
)
def test_it_trains_as_a_model_for_the_smaller_images(values):
    model, small = model_of(16, **values), model_of(12, **values)
    images = torch.tensor(RNG.normal(size=(4, 3, 16, 16)), dtype=torch.float32)
    whole = model(images)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.use_side(12)
    grid, num_special = small.tokens.patches.grid, small.tokens.num_special
    assert model.tokens.patches.grid == grid and model.tokens.num_tokens == small.tokens.num_tokens
    if "tokens.positions" in state:
        model.use_side(None)
        table, old = state["tokens.positions"][0].numpy(), model.tokens.patches.grid
        fitted = resize.resized_positions(table.astype(np.float64), old, grid, num_special)
        state["tokens.positions"] = torch.tensor(fitted, dtype=torch.float32)[None]
        model.use_side(12)
    small.load_state_dict(state)
    shrunk = torch.tensor(resize.resize(images.numpy(), 12, 12, "bilinear"), dtype=torch.float32)
    torch.testing.assert_close(model(images), small(shrunk), rtol=1e-4, atol=1e-5)
    model.eval()
    torch.testing.assert_close(model(images), whole, msg="images to evaluate keep their size")
    model.train().use_side(None)
    assert torch.equal(model(images), whole)


def test_gradients_reach_the_whole_table_of_positions():
    model = model_of(16)
    model.use_side(8)
    model(torch.randn(4, 3, 16, 16)).square().sum().backward()
    assert model.tokens.positions.grad.abs().sum(dim=2).all()


def started(size: int = 16, **values) -> Trainer:
    images = RNG.integers(0, 256, (B * STEPS, size, size, 3), dtype=np.uint8)
    split = Split(images, np.arange(B * STEPS) % 3)
    small = {"batch_size": B, "schedule.passes": 6, "schedule.warmup_passes": 1, "schedule.sides": (8, 12)}
    small |= {"model.width": 24, "model.num_heads": 2, "model.depth": 1, "augment.policy": "none"}
    config = override(recipe("paper"), small | values)
    return Trainer(
        config, Splits(split, None, split, ("a", "b", "c"), "made", ()), torch.device("cpu"), SilentReporter()
    )


@pytest.mark.parametrize(("drop", "tokens"), [(0.0, [4, 9, 16]), (0.5, [2, 4, 8])])
def test_each_part_of_a_run_has_its_size(drop, tokens, monkeypatch):
    trainer, seen = started(**{"model.patch_drop": drop}), []
    trainer.model.blocks[0].register_forward_hook(
        lambda block, x, _: seen.append(x[0].shape[1] - 1) if block.training else None
    )
    prepared = []
    prepare = trainer.step._prepare
    trainer.step.warm_up, trainer.step.warm = True, False
    monkeypatch.setattr(trainer.step, "_prepare", lambda: (prepared.append(trainer.step.side), prepare())[1])
    assert [trainer.config.schedule.side(p) for p in range(6)] == [8, 8, 12, 12, None, None]
    for pass_index in range(6):
        trainer.step.use_side(trainer.config.schedule.side(pass_index))
        trainer.step.set_chunk(trainer.chunks.load(pass_index, 0, STEPS))
        seen.clear()
        for _ in range(STEPS):
            trainer.step()
        assert seen == [tokens[pass_index // 2]] * STEPS
    assert prepared == [8, 12, None], "one graph a size"
    assert torch.isfinite(trainer.step.losses).all()


@pytest.mark.parametrize(
    ("size", "values", "words"),
    [
        (16, {"schedule.sides": (32,)}, r"schedule.sides=\(32,\): the images have only 16 pixels a side"),
        (
            16,
            {"schedule.sides": (10,)},
            r"schedule.sides=\(10,\): model.patch_size=4 does not divide images of 10 × 10",
        ),
        (16, {"schedule.passes": 2}, r"schedule.sides=\(8, 12\) need more than schedule.passes=2"),
        (16, {"model.positions": "rope"}, r"schedule.sides=\(8, 12\) cannot be combined with model.positions=rope"),
    ],
)
def test_what_cannot_be_shrunk_is_refused(size, values, words):
    with pytest.raises(InputError, match=words):
        started(size, **values)


def test_sides_are_whole_numbers():
    assert override(RunConfig(), {"schedule.sides": [24, 28]}).schedule.sides == (24, 28)
    for wrong in (24, [24.5], [0]):
        with pytest.raises(InputError, match="schedule.sides="):
            override(RunConfig(), {"schedule.sides": wrong})
