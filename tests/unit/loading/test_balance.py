"""Class weights against scikit-learn, and passes in which all classes come equally often."""

import numpy as np
import pytest
import torch
from objective_cases import batch_of, model_of
from sklearn.utils.class_weight import compute_class_weight

from pocketvit.augment.batch import Batch
from pocketvit.augment.mix import mix, smooth_targets
from pocketvit.config import AugmentConfig, DataConfig, RunConfig, override
from pocketvit.data import Split
from pocketvit.errors import InputError
from pocketvit.loading.balance import balance_note, balanced_order, class_weights
from pocketvit.loading.loader import TrainLoader
from pocketvit.objectives.classification import Classification, cross_entropy
from pocketvit.objectives.distillation import Distillation

LABELS = np.repeat([0, 1, 2, 4], [60, 25, 12, 3])  # no image of class 3


def test_weights_are_scikit_learns_and_one_in_the_mean():
    weights = class_weights(LABELS, 5)
    present = np.unique(LABELS)
    wanted = compute_class_weight("balanced", classes=present, y=LABELS)
    np.testing.assert_allclose(weights[present], wanted, rtol=1e-12)
    assert weights[3] == 1 and weights[LABELS].mean() == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("share", [1.0, 0.7])
def test_the_weighted_loss_is_pytorchs_also_of_mixed_and_smoothed_targets(smoothing, share):
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(8, 5, generator=generator, dtype=torch.float64), torch.arange(8) % 5
    weights = torch.tensor(class_weights(LABELS, 5))
    row = torch.tensor([share, share, 0, 0, 0, 0, share])
    _, targets = mix(torch.zeros(8, 3, 2, 2), smooth_targets(labels, 5, smoothing), row)
    found = cross_entropy(logits, targets.double(), weights)
    wanted = torch.nn.functional.cross_entropy(logits, targets.double(), weights, reduction="sum")
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)
    explicit = -sum(float(weights[k] * targets[i, k] * logits[i].log_softmax(0)[k]) for i in range(8) for k in range(5))
    assert float(found) == pytest.approx(explicit, rel=1e-6)


def test_weights_leave_the_accuracy_as_it_is():
    logits, targets = torch.tensor([[2.0, 1.0]]), torch.tensor([[0.6, 0.4]])
    batch = Batch(torch.zeros(1, 3, 2, 2), targets, None)
    loss, logged = Classification(1, torch.tensor([0.1, 100.0]))(lambda *_: logits, batch)
    assert float(logged["train_accuracy"]) == 1 and float(loss) > 10


def test_weights_are_for_the_half_of_a_distillation_that_is_by_the_labels():
    model, weights = model_of(distilled=True), torch.tensor([4.0, 1.0, 0.5], dtype=torch.float64)
    batch, teacher = batch_of(model, 0), model_of()
    losses = []
    for given in (None, weights):
        objective = Distillation(6, teacher, (0.0,) * 3, (1.0,) * 3, 0, given)
        objective.prepare(model, torch.zeros(3).double(), torch.ones(3).double())
        losses.append(objective(model, batch)[0])
    own, _ = model.heads(model.features(batch.images, batch.drop_path))
    parts = [torch.nn.functional.cross_entropy(own, batch.targets, w, reduction="sum") for w in (None, weights)]
    torch.testing.assert_close(losses[1] - losses[0], (parts[1] - parts[0]) / 12, rtol=1e-9, atol=0)


def loader(batch_size=10, seed=0, labels=LABELS, **data):
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 16, 16, 3), dtype=np.uint8)
    return TrainLoader(
        Split(images, labels), data=DataConfig(balance="sampling", **data), augment=AugmentConfig(), seed=seed,
        batch_size=batch_size, device=torch.device("cpu"),
    )  # fmt: skip


def test_every_class_comes_equally_often_and_every_image_of_it():
    labels = np.repeat([0, 1, 2], [60, 25, 16])
    for p in range(4):
        order = balanced_order(labels, seed=0, pass_index=p, length=100)
        assert sorted(np.bincount(labels[order])) == [33, 33, 34]
        times = np.bincount(order, minlength=len(labels))
        for k in range(3):
            assert times[labels == k].max() - times[labels == k].min() <= 1
    sums = sum(np.bincount(labels[balanced_order(labels, seed=0, pass_index=p, length=100)]) for p in range(3))
    assert set(sums) == {100}, "the classes take turns through the passes"


def test_all_images_of_a_large_class_come_in_some_pass():
    seen = {i for p in range(12) for i in balanced_order(LABELS, seed=0, pass_index=p, length=100)}
    assert len(seen) == len(LABELS)


def test_a_plan_belongs_to_seed_and_pass_and_keeps_its_length():
    used = loader()
    used.plan(4)
    assert (used.plan(1).indices == loader().plan(1).indices).all()
    assert len({tuple(loader(seed=s).plan(p).indices) for s in (0, 1) for p in (0, 1)}) == 4
    assert len(used.plan(1).indices) == 100 and used.steps_per_pass == 10
    shuffled = LABELS[used.plan(0).indices].reshape(10, 10)
    assert len({tuple(batch) for batch in shuffled}) > 5, "batches are not the classes in turn"


def test_a_repeated_image_is_augmented_anew():
    plan = loader().plan(0)
    table = np.column_stack([plan.images.flip, plan.images.shift, plan.images.ops.op, plan.images.ops.value])
    rare = table[LABELS[plan.indices] == 4]
    assert len(rare) == 25 and len(np.unique(rare, axis=0)) > 20
    assert len(table) == 100


def test_even_classes_are_noted():
    assert balance_note("none", np.arange(6) % 3) is balance_note("loss", LABELS) is None
    wanted = "data.balance=sampling has no effect: every class has 2 training images"
    assert balance_note("sampling", np.arange(6) % 3) == wanted


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"data.balance": "sampling", "data.repeats": "batch"}, "data.repeats=batch"),
        ({"data.balance": "sampling", "augment.flips": "alternating"}, "augment.flips=alternating"),
        ({"data.balance": "loss", "objective.name": "mae"}, "objective.name=mae"),
        ({"data.balance": "loss", "objective.name": "dino"}, "objective.name=dino"),
    ],
)
def test_what_does_not_go_together_is_refused(values, named):
    with pytest.raises(InputError, match=rf"data\.balance=\w+ cannot be combined with {named}"):
        override(RunConfig(), values)
