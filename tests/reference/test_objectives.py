"""Objectives against the papers' formulas, written out in NumPy by another hand (`neighbours`)."""

import numpy as np
import pytest
import torch
from interpreter import assert_green_in_the_interpreter, in_interpreter, natively
from neighbours.dino import dino_loss, head_output, teacher_momentum, update_center, update_teacher
from neighbours.distillation import deit_hard_distillation, fused_probabilities
from neighbours.drloc import drloc_loss
from neighbours.mae import mae_loss, num_kept
from objective_cases import OBJECTIVES, batch_of, model_of, save_teacher, undecided, with_teacher
from training_cases import first_gradients, gradient_errors

from pocketvit.config import override
from pocketvit.data import Split, Splits
from pocketvit.objectives.classification import Classification, cross_entropy
from pocketvit.objectives.dino import DRAWS, PROTOTYPES, Dino
from pocketvit.objectives.distillation import Distillation
from pocketvit.objectives.drloc import PAIRS, RelativeLocalization
from pocketvit.objectives.mae import MaskedAutoencoder
from pocketvit.recipes import recipe
from pocketvit.training.progress import SilentReporter
from pocketvit.training.trainer import Trainer


@pytest.mark.parametrize("special", [{}, {"pool": "mean"}, {"num_cls_tokens": 2, "num_registers": 1}], ids=str)
def test_drloc_is_the_papers_loss(special):
    model = model_of(image_size=(12, 20), **special)  # 3 × 5 patches
    objective, plain = RelativeLocalization(Classification(24), model, 0.3), Classification(24)
    objective.mlp.double()
    batch = batch_of(model, num_draws=objective.num_draws)
    assert objective.num_draws == 2 * PAIRS == 128
    loss, logged = objective(model, batch)

    chosen = np.floor(batch.draws.numpy() * 15).astype(int)  # (B, 2·m)
    pairs = np.stack([chosen // 5, chosen % 5], axis=2).reshape(len(chosen), PAIRS, 2, 2)
    assert len({tuple(pair) for pair in pairs.reshape(-1, 2)}) == 15
    grids = model.features(batch.images, batch.drop_path)[:, model.tokens.num_special :].unflatten(1, (3, 5))
    layers = [objective.mlp[i] for i in (0, 2, 4)]
    weights, biases = ([p.detach().numpy() for p in kind] for kind in zip(*(layer.parameters() for layer in layers)))
    assert [weight.shape for weight in weights] == [(512, 48), (512, 512), (2, 512)]
    wanted = drloc_loss(grids.detach().numpy(), pairs, list(weights), list(biases)) * len(chosen) / 24
    assert float(logged["drloc"]) == pytest.approx(wanted, rel=1e-6)
    assert float((loss - plain(model, batch)[0]).detach()) == pytest.approx(0.3 * wanted, rel=1e-5)


@pytest.mark.parametrize("special", [{}, {"pool": "mean", "num_registers": 2}, {"num_cls_tokens": 2}], ids=str)
def test_distillation_is_the_papers_loss_and_answer(special):
    model, teacher = (
        model_of(distilled=True, **special),
        undecided(model_of(depth=1, pool="mean")).requires_grad_(False),
    )
    objective = Distillation(24, teacher, (0.3, 0.5, 0.4), (0.3, 0.2, 0.25), 0)
    mean, std = (torch.tensor(x, dtype=torch.float64) for x in ((0.4, 0.4, 0.5), (0.25, 0.2, 0.3)))
    objective.prepare(model, mean, std)
    batch = batch_of(model, num_draws=0)
    loss, _ = objective(model, batch)

    tokens = model.features(batch.images, batch.drop_path)
    own, distilled = model.head(model.pool(tokens)), model.distilled_head(tokens[:, model.tokens.num_cls])
    pixels = batch.images * std[:, None, None] + mean[:, None, None]
    others = [torch.tensor(x, dtype=torch.float64)[:, None, None] for x in objective.stats]
    given = [x.detach().numpy() for x in (own, distilled, batch.targets, teacher((pixels - others[0]) / others[1]))]
    assert len(set(given[3].argmax(axis=1))) > 1
    assert float(loss.detach()) == pytest.approx(deit_hard_distillation(*given) * len(own) / 24, rel=1e-9)
    probabilities = model(batch.images, batch.drop_path).softmax(dim=1).detach().numpy()
    np.testing.assert_allclose(probabilities, fused_probabilities(*given[:2]), rtol=1e-9)


def test_dino_is_the_papers_loss_and_moves_as_its_teacher_does():
    model = model_of()
    objective = Dino(24, model)
    objective.layers.double()
    objective.prepare(model, torch.full((3,), 0.5, dtype=torch.float64), torch.full((3,), 0.25, dtype=torch.float64))
    own = objective.layers
    own.center.copy_(torch.linspace(-0.1, 0.1, PROTOTYPES))
    start = {name: p.clone() for name, p in own.teacher.named_parameters()}
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.01)
    batch = batch_of(model, num_draws=objective.num_draws)
    loss, logged = objective(model, batch)

    views = [objective.view(batch.images, draws) for draws in batch.draws.split(DRAWS, dim=1)]
    weight = own.projection.prototypes.detach().numpy()

    def answers(vit, projection, drop_path):
        pooled = [vit.features(view, drop_path)[:, 0] for view in views]
        return np.stack([head_output(projection.mlp(x).detach().numpy(), weight) for x in pooled])

    student, teacher = (
        answers(model, own.projection, batch.drop_path),
        answers(own.teacher, own.teacher_projection, None),
    )
    wanted = dino_loss(student, teacher, own.center.numpy()) * 6 / 24
    assert float(logged["dino"]) == pytest.approx(wanted, rel=1e-9)
    classes = [cross_entropy(model(view, batch.drop_path), batch.targets) / 24 for view in views]
    assert float((loss - logged["dino"]).detach()) == pytest.approx(float(sum(classes).detach()) / 2, rel=1e-9)

    loss.backward()
    assert all(p.grad is not None for p in [*model.parameters(), *own.projection.parameters()])
    assert not any(p.requires_grad for p in [*own.teacher.parameters(), *own.teacher_projection.parameters()])
    center = update_center(own.center.numpy().copy(), teacher)
    objective.update(model, {"center": logged["center"] * 4}, torch.tensor([0.3]))
    np.testing.assert_allclose(own.center.numpy(), center, rtol=1e-9)
    momentum = teacher_momentum(3, 10)
    for name, p in own.teacher.named_parameters():
        expected = update_teacher(start[name].numpy(), model.get_parameter(name).detach().numpy(), momentum)
        np.testing.assert_allclose(p.numpy(), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("make", [Dino, MaskedAutoencoder])
def test_the_classifier_beside_changes_nothing_but_itself(make):
    model, gradients = model_of(), []
    objective = make(6, model)
    objective.layers.double()
    objective.prepare(model, *(torch.full((3,), x, dtype=torch.float64) for x in (0.5, 0.25)))
    batch = batch_of(model, num_draws=objective.num_draws)
    for targets in (batch.targets, batch.targets.roll(1, dims=1)):
        model.zero_grad()
        objective(model, batch._replace(targets=targets))[0].backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
    changed = {name for name, grad in gradients[0].items() if not torch.equal(grad, gradients[1][name])}
    assert changed == {"head.weight", "head.bias"}


def test_dinos_views_are_parts_of_the_image_in_other_colors():
    model = model_of()
    objective = Dino(6, model)
    mean, std = (torch.tensor(x, dtype=torch.float64) for x in ((0.4, 0.5, 0.6), (0.2, 0.3, 0.25)))
    objective.prepare(model, mean, std)
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    pixels = (torch.stack([x, y, x + y]) / 64 + 0.2).double()  # (C, H, W), linear: bilinear resizing keeps it exact
    images = ((pixels - mean[:, None, None]) / std[:, None, None])[None]

    def view(**numbers):
        names = ("area", "ratio", "x", "y", "mirrored", "bright", "contrast", "saturated", "colored", "gray")
        plain = {"area": 1.0, "colored": 0.9, "gray": 0.5, "mirrored": 0.9}  # the whole image, as it is
        draws = torch.tensor([[(plain | numbers).get(name, 0.5) for name in names]])
        return (objective.view(images, draws)[0] * std[:, None, None] + mean[:, None, None]).numpy()

    np.testing.assert_allclose(view(), pixels, atol=1e-6)
    np.testing.assert_allclose(view(mirrored=0.1), pixels.flip(2), atol=1e-6)
    quarter = view(area=0.0, x=1.0, y=0.0)  # a quarter of the area at the top right: half the slope
    np.testing.assert_allclose(
        quarter[0, :, 1:-1], np.tile((7.75 + 0.5 * np.arange(1, 15)) / 64 + 0.2, (16, 1)), atol=1e-6
    )
    np.testing.assert_allclose(
        quarter[1, 1:-1], np.tile((-0.25 + 0.5 * np.arange(1, 15))[:, None] / 64 + 0.2, 16), atol=1e-6
    )
    np.testing.assert_allclose(view(colored=0.1, bright=1.0), pixels * 1.4, atol=1e-6)
    grays = view(colored=0.1, gray=0.1)
    np.testing.assert_allclose(grays, np.tile(pixels.mean(dim=0), (3, 1, 1)), atol=1e-6)
    flat = view(colored=0.1, contrast=0.0)
    np.testing.assert_allclose(flat - flat.mean(), 0.6 * (pixels - pixels.mean()), atol=1e-6)


@pytest.mark.parametrize(
    "special", [{}, {"pool": "mean", "block_repeats": 2}, {"num_cls_tokens": 2, "num_registers": 1}], ids=str
)
def test_an_autoencoder_sees_a_quarter_and_predicts_the_rest(special):
    model = model_of(image_size=(12, 20), **special)  # 3 × 5 patches
    objective = MaskedAutoencoder(24, model)
    decoder, count = objective.layers.double(), model.tokens.num_special
    assert len(decoder.vit.layers) == 1
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    batch = batch_of(model, num_draws=15)
    loss, logged = objective(model, batch)

    order = np.argsort(batch.draws.numpy(), axis=1, kind="stable")
    visible = order[:, : num_kept(15, 0.75)]
    assert visible.shape == (6, 3) and objective.stacks(model) == ((count + 3, count + 3), (count + 15, count + 15))
    hidden = np.ones((6, 15), dtype=bool)
    np.put_along_axis(hidden, visible, False, axis=1)
    every = model.tokens(batch.images)
    found, seen = [], []
    for image in range(6):  # one by one, each with its own patches
        keep = None if batch.drop_path is None else batch.drop_path[:, :, image : image + 1]
        chosen = [every[image, :count], *(every[image, count + p][None] for p in visible[image])]
        tokens = model.encode(torch.cat(chosen)[None], keep)
        seen.append(tokens[0])
        inner = decoder.embedding(tokens)[0]
        whole = [*inner[:count], *([decoder.hidden[0, 0]] * 15)]
        for place, p in enumerate(visible[image]):
            whole[count + p] = inner[count + place]
        x = torch.stack(whole) + decoder.vit.tokens.positions[0]
        found.append(decoder.vit.head(decoder.vit.encode(x[None])[0, count:]))
    wanted = mae_loss(batch.images.numpy(), torch.stack(found).detach().numpy(), hidden, 4) * 6 / 24
    assert float(logged["mae"]) == pytest.approx(wanted, rel=1e-9)
    classes = cross_entropy(model.classify(torch.stack(seen)), batch.targets) / 24
    assert float((loss - logged["mae"]).detach()) == pytest.approx(float(classes.detach()), rel=1e-9)
    loss.backward()
    assert all(p.grad is not None for p in [*model.parameters(), *decoder.parameters()] if p.requires_grad)


@in_interpreter
@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_fused_kernels_give_the_same_gradients(name, tmp_path):
    """With the numbers of tokens that each objective's stacks have, and those that it takes."""
    split = Split(np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8), np.arange(8) % 3)
    splits, found = Splits(split, None, split, ("a", "b", "c"), "synthetic", ()), []
    small = {"batch_size": 2, "model.width": 32, "model.depth": 1, "model.num_heads": 2, "model.mlp_ratio": 1}
    small |= {"model.patch_size": 8, "schedule.passes": 1, "schedule.warmup_passes": 0}
    small |= with_teacher(OBJECTIVES[name], save_teacher(tmp_path / "teacher.safetensors", splits.class_names))
    for kernels in ("fused", "reference"):
        config = override(recipe("paper"), small | {"train.kernels": kernels})
        trainer = Trainer(config, splits, torch.device("cpu"), SilentReporter())
        trainer.step.set_chunk(trainer.chunks.load(0, 0, 1))
        found.append(first_gradients(trainer))
    errors = gradient_errors(*found)
    assert 0 < max(errors.values()) < 1e-4


@natively
@pytest.mark.long
def test_the_kernels_are_green_in_the_interpreter():
    assert_green_in_the_interpreter("reference/test_objectives.py")
