"""Dropout: the hash against NumPy's unsigned integers, its places against timm's, its masks against each other."""

import numpy as np
import pytest
import torch
from objective_cases import OBJECTIVES, save_teacher, with_teacher
from test_vit import spread_weights, timm_model
from torch import nn

from pocketvit.config import override
from pocketvit.data import Split, Splits
from pocketvit.errors import InputError
from pocketvit.model import create_model
from pocketvit.model.dropout import drop, kept
from pocketvit.randomness import Stream, keys
from pocketvit.recipes import recipe
from pocketvit.training.distributed import ALONE, Processes
from pocketvit.training.progress import SilentReporter
from pocketvit.training.trainer import Trainer

RATE = 0.3
B = 4


GAMMA = np.uint64(0x9E3779B97F4A7C15)


def splitmix64(numbers: np.ndarray) -> np.ndarray:
    """The hash by which Java's SplittableRandom makes random numbers of its states, uint64, as its paper gives it."""
    with np.errstate(over="ignore"):
        z = numbers
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def consecutive(key: int, count: int) -> np.ndarray:
    """key, key + 1, …; uint64."""
    with np.errstate(over="ignore"):
        return np.uint64(key) + np.arange(count, dtype=np.uint64)


def test_the_hash_is_splitmix64s_of_consecutive_numbers():
    """Vigna's published numbers for seed 1234567 hold the oracle."""
    with np.errstate(over="ignore"):
        states = np.uint64(1234567) + GAMMA * np.arange(1, 4, dtype=np.uint64)
    assert splitmix64(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]
    seeds = [0, 1, 1234567, 2**63, 2**64 - 1]
    given = torch.from_numpy(np.array(seeds, dtype=np.uint64).view(np.int64))
    for rate in (0.0, 0.1, 0.5, 0.999):
        for row, seed in zip(kept(1000, rate, given), seeds, strict=True):
            wanted = splitmix64(consecutive(seed, 1000)) / 2.0**64 >= rate
            assert (row.numpy() == wanted).mean() > 0.998  # 24 bits of the number are compared
            assert rate or row.all()


def test_numbers_are_dropped_at_the_rate_and_independently():
    given = torch.from_numpy(keys(0, Stream.DROPOUT, 0, 200, 1)[:, 0])
    masks = kept(5000, RATE, given).double() - (1 - RATE)
    count = masks.numel()
    assert abs(masks.mean()) < 4 * (RATE * (1 - RATE) / count) ** 0.5
    others = {"images": (masks[:-1] * masks[1:]), "neighbors": (masks[:, :-1] * masks[:, 1:])}
    for products in others.values():
        assert abs(products.mean()) < 4 * RATE * (1 - RATE) / count**0.5


def test_what_stays_is_scaled_in_the_numbers_type():
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        x = torch.ones(B, 6, 50, dtype=dtype, requires_grad=True)
        y = drop(x, RATE, torch.arange(B))
        assert y.dtype == dtype and set(y.flatten().tolist()) == {0.0, float(torch.ones((), dtype=dtype) / (1 - RATE))}
        y.sum().backward()
        assert torch.equal(x.grad, y)
    assert drop(x, RATE, None) is x


class Given(nn.Module):
    """Stands for a dropout of timm's: multiplies by a mask of ours."""

    def __init__(self, key: torch.Tensor) -> None:
        super().__init__()
        self.key = key

    def forward(self, x):
        numbers = np.stack([splitmix64(consecutive(key, x[0].numel())) for key in self.key.numpy().view(np.uint64)])
        mask = numbers >> np.uint64(40) >= round(RATE * 2**24)
        return x * torch.from_numpy(mask).view(x.shape) / (1 - RATE)


@pytest.mark.parametrize("layer_scale", [None, 0.5])
def test_its_places_are_those_of_timms_projections_and_positions(layer_scale):
    ours = spread_weights(create_model("paper", width=24, depth=2, num_heads=2, dropout=RATE, layer_scale=layer_scale))
    given = torch.from_numpy(keys(0, Stream.DROPOUT, 0, ours.config.num_dropouts, B))
    theirs = timm_model(ours, pos_drop_rate=RATE, proj_drop_rate=RATE, init_values=layer_scale)
    count = 0
    theirs.train()
    places = [
        "pos_drop",
        *(f"blocks.{i}.{place}" for i in range(2) for place in ("attn.proj_drop", "mlp.drop1", "mlp.drop2")),
    ]
    for name, module in list(theirs.named_modules()):
        if isinstance(module, nn.Dropout) and module.p:
            parent, _, leaf = name.rpartition(".")
            setattr(theirs.get_submodule(parent), leaf, Given(given[places.index(name)]))
            count += 1
    assert count == len(places) == len(given)
    images = torch.randn(B, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(images, None, given), theirs(images), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(ours(images), theirs(images), rtol=0.1)


SET = Split(np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8), np.arange(24) % 3)
SEVERAL = Split(SET.images, np.arange(24)[:, None] % (2, 3, 4) == 0)  # classes of an image
SPLITS, OF_SEVERAL = (Splits(data, None, data, ("a", "b", "c"), "synthetic", ()) for data in (SET, SEVERAL))
SMALL = {"batch_size": 8, "schedule.passes": 2, "schedule.warmup_passes": 0, "model.width": 24, "model.num_heads": 2}
SMALL |= {"model.depth": 1, "model.dropout": RATE, "augment.mixup_prob": 1.0, "augment.cutmix_prob": 0.0}


def trainer_of(share: Processes = ALONE, **values) -> Trainer:
    splits = OF_SEVERAL if values.get("objective.name") == "multilabel" else SPLITS
    trainer = Trainer(override(recipe("paper"), SMALL | values), splits, torch.device("cpu"), SilentReporter(), share)
    trainer.model.train()
    return trainer


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return save_teacher(tmp_path_factory.mktemp("teacher") / "teacher.safetensors", ("a", "b", "c"))


@pytest.mark.parametrize(
    "values",
    [{}, *OBJECTIVES.values(), {"model.patch_drop": 0.5}, {"objective.name": "multilabel"}],
    ids=["plain", *OBJECTIVES, "fewer", "multilabel"],
)
def test_every_objective_drops_and_an_image_drops_the_same_in_any_share_of_the_batch(values, teacher):
    values, losses = with_teacher(values, teacher), []
    for processes in (ALONE, Processes(0, 2), Processes(1, 2)):
        trainer = trainer_of(processes, **values)
        chunk, at = trainer.chunks.load(1, 1, 1), torch.zeros(1, dtype=torch.int64)
        with torch.no_grad():
            found, plain = (
                float(next(iter(trainer.step.loss(trainer.model, given, at)))[0])
                for given in (chunk, chunk._replace(dropout=None))
            )
        losses.append(found)
        assert abs(found - plain) > 1e-4 * plain
    assert losses[0] == pytest.approx(losses[1] + losses[2], rel=1e-5)


def test_a_step_has_the_keys_of_its_address():
    trainer = trainer_of(**{"seed": 5, "model.depth": 2})
    found = trainer.chunks.load(1, 1, 2).dropout
    wanted = np.random.Philox(key=np.array([5, 13], np.uint64), counter=np.array([0, 0, 1, 0], np.uint64))
    wanted = wanted.random_raw(3 * 7 * 8).view(np.int64).reshape(3, 7, 8)[1:]
    assert torch.equal(found, torch.from_numpy(wanted))
    assert trainer_of(**{"train.freeze": "encoder"}).chunks.load(0, 0, 1).dropout is None


def test_a_block_that_does_not_know_it_is_refused():
    with pytest.raises(InputError, match=r"model.dropout=0.3 has no effect with model.block=.*ParallelBlock"):
        create_model("paper", dropout=RATE, block="docs/examples/my_parts.py:ParallelBlock")


def test_a_trained_model_drops_nothing():
    trained, plain = (
        trainer_of().trained(),
        create_model("paper", width=24, num_heads=2, depth=1, image_size=(16, 16), num_classes=3),
    )
    plain.load_state_dict(trained.model.state_dict())
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(trained.model.eval()(images), plain.eval()(images))
