"""Patch dropout against the oracle of another hand, and where a run gets its random patches from."""

import numpy as np
import pytest
import torch
from neighbours.patch_dropout import assert_random_subsets, num_kept, patch_dropout

from pocketvit.augment.batch import Batch
from pocketvit.config import ModelConfig, RunConfig, override
from pocketvit.data import Split, Splits
from pocketvit.errors import InputError
from pocketvit.model import ViT
from pocketvit.objectives.classification import Classification
from pocketvit.objectives.patch_dropout import PatchDropout
from pocketvit.randomness import Stream, uniform
from pocketvit.recipes import recipe
from pocketvit.training.progress import SilentReporter
from pocketvit.training.trainer import Trainer

B, STEPS, PATCHES = 8, 5, 16
RNG = np.random.default_rng(0)
SET = Split(RNG.integers(0, 256, (B * STEPS, 16, 16, 3), dtype=np.uint8), np.arange(B * STEPS) % 3)


def model_of(**values) -> ViT:
    config = ModelConfig(width=24, depth=2, num_heads=2, **values)
    return ViT(config, image_size=(16, 16), num_classes=3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("prob", [0.25, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("front", [{"num_cls_tokens": 2, "num_registers": 1}, {"pool": "mean"}], ids=str)
def test_tokens_equal_the_oracles(front, prob):
    model = model_of(patch_drop=prob, **front)
    draws = torch.rand(200, PATCHES, generator=torch.Generator().manual_seed(1))
    tokens = torch.randn(200, model.tokens.num_tokens, 24)
    kept = draws.argsort(dim=1)[:, : num_kept(PATCHES, prob)].numpy()
    assert_random_subsets(kept, PATCHES, prob)
    found = model.tokens.drop_patches(tokens, draws)
    np.testing.assert_array_equal(found.numpy(), patch_dropout(tokens.numpy(), kept, model.tokens.num_special))


@pytest.mark.parametrize("values", [{}, {"pool": "mean", "positions": "sincos"}, {"pool": "attention"}], ids=str)
def test_the_loss_sees_the_kept_patches_alone(values):
    model = model_of(patch_drop=0.5, **values)
    images, targets = torch.randn(B, 3, 16, 16), torch.eye(3)[torch.arange(B) % 3]
    draws = torch.rand(B, PATCHES)
    lost, grads = [], []
    for change in (0, 1):
        dropped = draws.argsort(dim=1)[:, PATCHES // 2 :]
        x = images.unflatten(3, (4, 4)).unflatten(2, (4, 4)).clone()  # (B, C, 4, 4, 4, 4)
        for image, patches in enumerate(dropped):
            x[image, :, patches // 4, :, patches % 4] += change
        loss, _ = PatchDropout(Classification(B), model)(
            model, Batch(x.flatten(4, 5).flatten(2, 3), targets, None, draws)
        )
        model.zero_grad()
        loss.backward()
        lost.append(loss)
        grads.append(model.blocks[0].mlp.fc1.weight.grad.clone())
    assert torch.equal(*lost) and torch.equal(*grads)
    whole, _ = Classification(B)(model, Batch(images, targets, None))
    assert not torch.isclose(lost[0], whole, rtol=1e-6)


def started(**values) -> Trainer:
    small = {"batch_size": B, "schedule.passes": 2, "schedule.warmup_passes": 1, "model.patch_drop": 0.25}
    small |= {"model.width": 24, "model.num_heads": 2, "model.depth": 2, "augment.policy": "none"}
    config = override(recipe("paper"), small | values)
    return Trainer(config, Splits(SET, None, SET, ("a", "b", "c"), "made", ()), torch.device("cpu"), SilentReporter())


def test_a_run_drops_other_patches_in_every_step_and_none_at_test():
    trainer, seen = started(), []
    trainer.model.blocks[0].register_forward_hook(lambda _, x, out: seen.append(out.shape[1]))
    chunk = trainer.chunks.load(1, 0, STEPS)
    wanted = uniform(trainer.config.seed, Stream.OBJECTIVE, 1, STEPS, B * PATCHES).reshape(STEPS, B, PATCHES)
    np.testing.assert_array_equal(chunk.draws.numpy(), wanted)
    trainer.step.set_chunk(chunk)
    trainer.step()
    assert seen == [1 + 12] and torch.isfinite(trainer.step.losses[0])
    assert trainer.objective.stacks(trainer.model)[0] == (1 + 12, 1)
    trainer.trained().logits(SET.images[:4])
    assert seen[1:] == [1 + 16]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model.positions": "rope"}, "model.patch_drop=0.5 cannot be combined with model.positions=rope"),
        ({"objective.drloc": 0.1}, "model.patch_drop=0.5 cannot be combined with objective.drloc=0.1"),
    ],
)
def test_what_needs_all_patches_is_refused(values, words):
    with pytest.raises(InputError, match=words):
        override(RunConfig(), {"model.patch_drop": 0.5} | values)
