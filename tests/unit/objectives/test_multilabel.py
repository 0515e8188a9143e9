"""Binary cross-entropy against PyTorch's, and its targets."""

import numpy as np
import pytest
import torch

from pocketvit.augment.batch import Batch, BatchMaker, Chunk
from pocketvit.augment.mix import smooth_targets
from pocketvit.config import RunConfig, override
from pocketvit.errors import InputError
from pocketvit.inference.logits import accuracy, mean_loss
from pocketvit.objectives.multilabel import Multilabel

LABELS = torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]], dtype=torch.bool)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_the_loss_is_binary_cross_entropy(dtype):
    generator = torch.Generator().manual_seed(0)
    logits = (4 * torch.randn(6, 5, generator=generator, dtype=torch.float64)).to(dtype)
    targets = torch.rand(6, 5, generator=generator)
    batch = Batch(torch.zeros(6, 3, 8, 8), targets, torch.ones(2, 2, 6), dropout=torch.ones(1))

    def model(images, drop_path, dropout):
        assert images is batch.images and drop_path is batch.drop_path and dropout is batch.dropout
        return logits

    loss, logged = Multilabel(batch_size=24)(model, batch)
    wanted = torch.nn.BCEWithLogitsLoss()(logits.double(), targets.double()) * 6 / 24
    assert loss.dtype == torch.promote_types(dtype, torch.float32) and logged == {}
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_targets_are_smoothed_to_one_half_and_mixed_by_share(smoothing):
    targets = smooth_targets(LABELS, 3, smoothing)
    assert torch.allclose(targets, LABELS * (1 - smoothing) + smoothing / 2)
    row = torch.tensor([[0.7, 0.7, 0, 0, 0, 0, 0.7]])
    chunk = Chunk(torch.zeros(4, 2, 2, 3, dtype=torch.uint8), LABELS, torch.zeros(4, 4, dtype=torch.int64), row)
    maker = BatchMaker(torch.zeros(3), torch.ones(3), 3, smoothing)
    mixed = maker.finish(chunk.take(torch.zeros(1, dtype=torch.int64))).targets
    torch.testing.assert_close(mixed, 0.7 * targets + 0.3 * targets.flip(0))
    fused = maker.fused(chunk, torch.zeros(1, dtype=torch.int64), torch.bfloat16)
    assert fused.images.dtype == torch.bfloat16 and torch.equal(fused.targets, mixed)


def test_scores_of_several_classes():
    logits = torch.tensor([[1.0, -1, 0], [-1, -1, -1], [1, 1, -1], [2, 2, -2]])
    assert accuracy(logits, LABELS.numpy()) == 0.5
    wanted = torch.nn.BCEWithLogitsLoss()(logits.double(), LABELS.double())
    assert mean_loss(logits, LABELS.numpy()) == pytest.approx(float(wanted), rel=1e-12)
    assert accuracy(logits, np.array([0, 1, 0, 1])) == 0.5


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"data.balance": "loss"}, "data.balance=loss cannot be combined with objective.name=multilabel"),
        ({"data.balance": "sampling"}, "data.balance=sampling cannot be combined with objective.name=multilabel"),
        ({"model.patch_drop": 0.5}, "model.patch_drop=0.5 cannot be combined with objective.name=multilabel"),
        ({"objective.drloc": 0.1}, "objective.drloc=0.1 has no effect with objective.name=multilabel"),
    ],
)
def test_what_does_not_go_with_it_is_refused(values, said):
    with pytest.raises(InputError, match=said):
        override(RunConfig(), {"objective.name": "multilabel", **values})


def test_what_does_go_with_it():
    values = {"train.freeze": "encoder", "schedule.sides": (16,), "data.label_separator": "|"}
    assert override(RunConfig(), {"objective.name": "multilabel", **values}).data.label_separator == "|"
