"""The order of the images, the two meanings of repeats, and the rule that nothing depends on what ran before."""

import numpy as np
import pytest
import torch

from pocketvit.augment.augment import augment
from pocketvit.augment.mix import MIX_COLUMNS, mix
from pocketvit.config import AugmentConfig, DataConfig
from pocketvit.data import Split
from pocketvit.errors import InputError
from pocketvit.loading.loader import TrainLoader
from pocketvit.randomness import Stream, permutation, raw

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 16, 16, 3), dtype=np.uint8)
LABELS = np.arange(50) % 5


def loader(batch_size=8, seed=0, **data):
    return TrainLoader(
        Split(IMAGES, LABELS),
        data=DataConfig(**data),
        augment=AugmentConfig(),
        seed=seed,
        batch_size=batch_size,
        device=torch.device("cpu"),
    )


def rows(table):
    """An image table as one array of numbers, to compare."""
    return np.column_stack([table.flip, table.shift, table.ops.op, table.ops.value, table.erase])


def test_a_fresh_pass_takes_each_image_at_most_once_and_drops_the_partial_batch():
    plan = loader().plan(0)
    assert len(plan.indices) == 48 == len(set(plan.indices.tolist()))
    assert len(plan.mix) == loader().steps_per_pass == 6


def test_passes_and_seeds_differ():
    orders = {tuple(loader(seed=seed).plan(p).indices) for seed in (0, 1) for p in (0, 1)}
    assert len(orders) == 4


def test_an_images_augmentation_belongs_to_seed_pass_and_image_alone():
    """Not to the batch size, nor to where in the pass the image comes."""
    small, large = loader(8).plan(3), loader(25).plan(3)
    by_image = dict(zip(small.indices.tolist(), rows(small.images).tolist(), strict=True))
    for index, row in zip(large.indices.tolist(), rows(large.images).tolist(), strict=True):
        if index in by_image:
            assert by_image[index] == row


def test_a_plan_does_not_depend_on_what_ran_before():
    used = loader()
    for p in (5, 1, 4):
        used.plan(p)
    assert (rows(used.plan(2).images) == rows(loader().plan(2).images)).all()
    assert (used.plan(2).indices == loader().plan(2).indices).all()
    assert (used.plan(2).mix == loader().plan(2).mix).all()


@pytest.mark.parametrize("copies", [2, 3])
def test_repeats_in_a_row(copies):
    """Over a group of passes each image comes `copies` times, in a row but for the order within a batch, augmented anew."""
    repeating = loader(batch_size=10, repeats="batch", num_repeats=copies)
    plans = [repeating.plan(copies + p) for p in range(copies)]  # the second group
    order = np.concatenate([plan.indices for plan in plans])
    in_a_row = permutation(0, Stream.ORDER, copies, 50).repeat(copies)
    assert not (order == in_a_row).all()
    assert (np.sort(order.reshape(-1, 10)) == np.sort(in_a_row.reshape(-1, 10))).all()
    seen = np.concatenate([rows(plan.images) for plan in plans])
    assert len(np.unique(np.column_stack([order, seen]), axis=0)) == 50 * copies
    fresh = loader(batch_size=10)
    as_fresh = {image: [] for image in range(50)}
    for c in range(copies):
        plan = fresh.plan(copies + c)
        for image, row in zip(plan.indices.tolist(), rows(plan.images).tolist(), strict=True):
            as_fresh[image].append(row)
    for image, expected in as_fresh.items():
        assert sorted(seen[order == image].tolist()) == sorted(expected), "augmented as in the passes of the group"


def partners(batch_size, passes, **data):
    """Ordered pairs (image, its partner in CutMix and MixUp) in each batch, as `mix` makes them."""
    images = np.zeros((2_000, 4, 4, 3), np.uint8)
    plans = TrainLoader(
        Split(images, np.arange(2_000) % 5), data=DataConfig(**data), augment=AugmentConfig(policy="none"), seed=0,
        batch_size=batch_size, device=torch.device("cpu"),
    )  # fmt: skip
    counts = []
    for indices in np.concatenate([plans.plan(p).indices.reshape(-1, batch_size) for p in range(passes)]):
        names = torch.from_numpy(indices).double()[:, None]  # (B, 1), where targets would be
        partner_only = torch.zeros(len(MIX_COLUMNS), dtype=torch.float64)
        partner = mix(torch.zeros(batch_size, 3, 4, 4), names, partner_only)[1].long().ravel()
        counts.append(len(set(zip(indices.tolist(), partner.tolist(), strict=True))))
    return counts


def test_copies_of_an_image_meet_different_partners():
    """The paper's code mixes with a random permutation: 253.9 pairs in a batch of 256; 3 · 3 copies meet in mirrored rows."""
    counts = partners(256, passes=12, repeats="batch")
    assert len(counts) == 84 and np.mean(counts) >= 250
    assert set(partners(256, passes=2, repeats="fresh")) == {256}


def test_batches_of_repeats_are_shuffled_by_address():
    """By seed, pass and step: each batch otherwise, and the same whatever ran before."""
    plan = loader(batch_size=24, repeats="batch").plan(1)
    used = loader(batch_size=24, repeats="batch")
    used.plan(4)
    assert (used.plan(1).indices == plan.indices).all()
    expected = np.argsort(raw(0, Stream.REPEATS, 1, 48).reshape(2, 24), kind="stable")
    in_a_row = permutation(0, Stream.ORDER, 0, 50).repeat(3)[50:98].reshape(2, 24)
    assert (plan.indices.reshape(2, 24) == np.take_along_axis(in_a_row, expected, axis=1)).all()


def test_a_batch_of_repeats_holds_a_third_of_the_images():
    plan = loader(batch_size=24, repeats="batch").plan(0)
    assert len(set(plan.indices[:24].tolist())) == 8


def test_chunks_are_slices_of_the_pass():
    whole = loader().load(loader().plan(1), 0, 6)
    part = loader().load(loader().plan(1), 2, 3)
    for all_of_it, some in zip(whole[:3], part[:3], strict=True):
        assert torch.equal(all_of_it[16:40], some)
    assert torch.equal(whole.mix[2:5], part.mix)


def test_a_chunk_is_the_augmented_images_and_their_labels():
    plan = loader().plan(0)
    whole = augment(torch.from_numpy(IMAGES[plan.indices]), plan.images)
    assert torch.equal(loader().load(plan, 0, 6).images, whole)
    assert torch.equal(loader().load(plan, 0, 6).labels, torch.from_numpy(LABELS[plan.indices]))


def test_a_clean_sample_is_the_images_themselves():
    indices = np.array([3, 1, 4])
    clean = loader().sample(indices, pass_index=None)
    assert torch.equal(clean.images, torch.from_numpy(IMAGES[indices])) and not clean.erase.any()
    augmented = loader().sample(indices, pass_index=0)
    assert not torch.equal(augmented.images, clean.images)


def test_a_batch_larger_than_the_set_is_refused():
    with pytest.raises(InputError, match="batch_size=51 is more than the 50 training images"):
        loader(51)
