"""The loss of classification against PyTorch's own cross-entropy, and its accuracy against a count."""

import numpy as np
import pytest
import torch

from pocketvit.augment.batch import Batch
from pocketvit.augment.mix import mix, smooth_targets
from pocketvit.objectives.classification import Classification


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_the_loss_is_cross_entropy_against_class_probabilities(dtype):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 10, generator=generator, dtype=torch.float64).to(dtype)
    targets = torch.rand(6, 10, generator=generator, dtype=torch.float64).softmax(dim=1).to(logits.dtype)
    given = Batch(torch.zeros(6, 3, 8, 8), targets, torch.ones(2, 2, 6))

    def model(images, drop_path, dropout):
        assert images is given.images and drop_path is given.drop_path and dropout is given.dropout
        return logits

    loss, logged = Classification(batch_size=24)(model, given)
    wanted = torch.nn.functional.cross_entropy(logits.double(), targets.double(), reduction="sum") / 24
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-6, atol=0)
    assert loss.dtype == torch.promote_types(dtype, torch.float32) and list(logged) == ["train_accuracy"]


@pytest.mark.parametrize("smoothing", [0.0, 0.4])
@pytest.mark.parametrize("weight", [1.0, 0.7, 0.2])
def test_a_mixed_image_counts_as_its_larger_part(smoothing, weight):
    generator = torch.Generator().manual_seed(1)
    labels, logits = torch.arange(40) % 4, torch.randn(40, 4, generator=generator)
    row = torch.tensor([weight, weight, 0.0, 0.0, 0.0, 0.0, weight])
    images, targets = mix(torch.zeros(40, 3, 2, 2), smooth_targets(labels, 4, smoothing), row)
    _, logged = Classification(batch_size=50)(lambda *_: logits, Batch(images, targets, None))
    wanted = labels.numpy() if weight > 0.5 else labels.numpy()[::-1]
    assert float(logged["train_accuracy"]) == pytest.approx((logits.numpy().argmax(1) == wanted).sum() / 50)
    assert 0 < np.mean(logits.numpy().argmax(1) == wanted) < 1
