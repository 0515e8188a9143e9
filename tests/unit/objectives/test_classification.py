"""The loss of classification against PyTorch's own cross-entropy."""

import pytest
import torch

from pocketvit.augment.batch import Batch
from pocketvit.objectives.classification import Classification


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_the_loss_is_cross_entropy_against_class_probabilities(dtype):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 10, generator=generator, dtype=torch.float64).to(dtype)
    targets = torch.rand(6, 10, generator=generator, dtype=torch.float64).softmax(dim=1).to(logits.dtype)
    given = Batch(torch.zeros(6, 3, 8, 8), targets, torch.ones(2, 2, 6))

    def model(images, drop_path):
        assert images is given.images and drop_path is given.drop_path
        return logits

    loss, logged = Classification(batch_size=24)(model, given)
    wanted = torch.nn.functional.cross_entropy(logits.double(), targets.double(), reduction="sum") / 24
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-6, atol=0)
    assert loss.dtype == torch.promote_types(dtype, torch.float32) and not logged
