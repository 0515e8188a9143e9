"""A step in pieces: the gradients and losses of whole batches, in less memory; test_distributed.py has several processes."""

import numpy as np
import pytest
import torch
from objective_cases import OBJECTIVES, TEACHER, convert, save_teacher, with_teacher
from torch.autograd.graph import saved_tensors_hooks
from training_cases import first_gradients, gradient_errors

from pocketvit.augment.batch import Batch
from pocketvit.config import override
from pocketvit.data import Split, Splits
from pocketvit.recipes import recipe
from pocketvit.training.progress import SilentReporter
from pocketvit.training.trainer import Trainer

SET = Split(np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8), np.arange(24) % 3)
SEVERAL = Split(SET.images, np.arange(24)[:, None] % (2, 3, 4) == 0)  # classes of an image
SPLITS, OF_SEVERAL = (Splits(data, None, data, ("a", "b", "c"), "synthetic", ()) for data in (SET, SEVERAL))
SMALL = {"batch_size": 8, "schedule.passes": 2, "schedule.warmup_passes": 0, "model.width": 24, "model.num_heads": 2}
SMALL |= {"model.depth": 2, "model.drop_path": 0.5, "model.dropout": 0.1}
CUTMIX, MIXUP = ({"augment.cutmix_prob": cut, "augment.mixup_prob": 1 - cut} for cut in (1.0, 0.0))
CHOICES = {
    "cutmix": CUTMIX,
    "mixup": MIXUP | {"optim.label_smoothing": 0.3, "model.pool": "mean"},
    "fewer patches": MIXUP | {"model.patch_drop": 0.5, "objective.teacher": TEACHER},
    "weighted": MIXUP | {"data.balance": "loss"},
    "multilabel": CUTMIX | {"objective.name": "multilabel"},
    "repeated blocks": MIXUP | {"model.block_repeats": 2},
    "clipped": MIXUP | {"optim.grad_clip": 0.1},
    **{name: MIXUP | values for name, values in OBJECTIVES.items()},
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return save_teacher(tmp_path_factory.mktemp("teacher") / "teacher.safetensors", ("a", "b", "c"))


def trainer_of(micro_batch: int | None, values: dict, dtype: torch.dtype = torch.float32) -> Trainer:
    config = override(recipe("paper"), SMALL | values | {"train.micro_batch": micro_batch})
    splits = OF_SEVERAL if config.objective.name == "multilabel" else SPLITS
    trainer = Trainer(config, splits, torch.device("cpu"), SilentReporter())
    trainer.model.to(dtype).train()
    convert(trainer.objective, dtype)
    trainer.mean, trainer.std = trainer.mean.to(dtype), trainer.std.to(dtype)
    trainer.step = trainer._make_step(config, trainer.processes)
    trainer.step.use_side(config.schedule.side(0))
    trainer.step.set_chunk(trainer.chunks.load(0, 0, 1))
    return trainer


@pytest.mark.parametrize("name", CHOICES)
def test_gradients_are_those_of_the_whole_batch(name, teacher):
    """In float64, so that the order of a sum hardly counts; a piece of 3 leaves a rest, 50 are more than there are."""
    values = with_teacher(CHOICES[name], teacher)
    whole = first_gradients(trainer_of(None, values, torch.float64))
    for micro_batch in (3, 50):
        found = first_gradients(trainer_of(micro_batch, values, torch.float64))
        assert max(gradient_errors(found, whole).values()) < 1e-10


@pytest.mark.parametrize("values", [CUTMIX, CUTMIX | {"schedule.sides": (8,)}], ids=["cutmix", "smaller images"])
def test_in_float32_they_differ_by_rounding(values):
    whole, found = (first_gradients(trainer_of(micro_batch, values)) for micro_batch in (None, 3))
    errors = gradient_errors(found, whole)
    assert 0 < max(errors.values()) < 1e-4


class Shared(torch.autograd.Function):
    """Adds a row's parameter to the first row of another one; a gradient is a view of the other, as torch.compile makes them."""

    @staticmethod
    def forward(ctx, row, rows):
        return torch.cat([rows[:, :1] + row, rows[:, 1:]], dim=1)

    @staticmethod
    def backward(ctx, grad):
        grad = grad.clone()
        return grad[:, :1], grad


def test_a_gradient_that_is_a_view_of_another_is_added_to_once():
    step = trainer_of(3, CUTMIX).step
    tokens = step.model.tokens
    step.loss = lambda *_: ((factor * Shared.apply(tokens.cls, tokens.positions).sum(), {}) for factor in (1, 2, 3))
    step.logged = {}
    step.backward()
    for parameter in (tokens.cls, tokens.positions):
        assert parameter.grad.unique().tolist() == [6]


@pytest.mark.parametrize("name", ["cutmix", "dino", "mae"])
def test_a_step_logs_and_shares_what_the_whole_batch_does(name):
    steps = [trainer_of(micro_batch, CHOICES[name]).step for micro_batch in (None, 3)]
    for step in steps:
        step()
    whole, pieces = (step.state() for step in steps)
    logged = {key for key in whole if key.startswith("logged.")} | {"run.losses"}
    logged |= {key for key in whole if key.endswith(".center")}
    assert len(logged) == {"cutmix": 2, "dino": 4, "mae": 3}[name]
    for key in logged:
        torch.testing.assert_close(pieces[key], whole[key], rtol=1e-4, atol=1e-6, equal_nan=True)
        assert whole[key].nan_to_num().any()


def test_a_piece_keeps_the_images_values_together():
    numbers = torch.arange(5.0)
    whole = Batch(numbers[:, None], numbers[:, None], numbers.expand(2, 2, 5), None, numbers.long().expand(7, 5))
    pieces = whole.split(2)
    assert [len(piece.images) for piece in pieces] == [2, 2, 1]
    for n, piece in enumerate(pieces):
        for tensor in (piece.images[:, 0], piece.targets[:, 0], piece.drop_path[1, 0], piece.dropout[6]):
            assert tensor.tolist() == numbers[2 * n : 2 * n + 2].tolist()
        assert piece.draws is None and piece.drop_path.is_contiguous()
    assert whole.split(None)[0] is whole.split(5)[0] is whole


def test_it_saves_memory():
    """What autograd keeps for the backward pass at its most."""

    def most_kept(micro_batch: int | None) -> int:
        trainer = trainer_of(micro_batch, {"model.dropout": 0.0})
        held: dict[int, int] = {}
        most = 0

        class Kept:
            def __init__(self, tensor: torch.Tensor) -> None:
                nonlocal most
                self.tensor = tensor
                held[id(self)] = tensor.numel() if tensor.ndim == 3 else 0  # tokens, not weights
                most = max(most, sum(held.values()))

            def __del__(self) -> None:
                held.pop(id(self), None)

        with saved_tensors_hooks(Kept, lambda kept: kept.tensor):
            trainer.step.backward()
        return most

    assert most_kept(2) == most_kept(None) / 4
