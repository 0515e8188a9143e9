"""Objectives against the papers' formulas, written out in NumPy by another hand (`neighbours`)."""

import numpy as np
import pytest
from neighbours.drloc import drloc_loss
from objective_cases import batch_of, model_of

from pocketvit.objectives.classification import Classification
from pocketvit.objectives.drloc import PAIRS, RelativeLocalization


@pytest.mark.parametrize("special", [{}, {"pool": "mean"}, {"num_cls_tokens": 2, "num_registers": 1}], ids=str)
def test_drloc_is_the_papers_loss(special):
    model = model_of(image_size=(12, 20), **special)  # 3 × 5 patches
    objective, plain = RelativeLocalization(24, model, 0.3), Classification(24)
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
