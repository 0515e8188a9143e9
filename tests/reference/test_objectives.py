"""Objectives against the papers' formulas, written out in NumPy by another hand (`neighbours`)."""

import numpy as np
import pytest
import torch
from neighbours.distillation import deit_hard_distillation, fused_probabilities
from neighbours.drloc import drloc_loss
from objective_cases import batch_of, model_of, undecided

from pocketvit.objectives.classification import Classification
from pocketvit.objectives.distillation import Distillation
from pocketvit.objectives.drloc import PAIRS, RelativeLocalization


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
    objective.set_stats(mean, std)
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
