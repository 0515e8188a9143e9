"""What the report shows of a model, against NumPy and the model's own maps."""

import numpy as np
import pytest
import torch

from pocketvit.inference import figures
from pocketvit.inference.figures import attention_figures, model_figures
from pocketvit.inference.trained_model import TrainedModel
from pocketvit.model import create_model

SMALL = {"width": 32, "num_heads": 2, "depth": 2, "patch_size": 8}
IMAGES = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
ROWS = np.array([7, 2, 5])


def trained(**fields) -> TrainedModel:
    torch.manual_seed(0)
    model = create_model("paper", **SMALL | fields)
    return TrainedModel(model, tuple("abcdefghij"), (0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize(
    ("stem", "shape"), [("patches", (32, 8, 8, 3)), ("shifted", (32, 8, 8, 3)), ("conv", (27, 3, 3, 3))]
)
def test_patch_filters_are_the_first_layers_singular_vectors(stem, shape):
    model = trained(stem=stem).model
    found = model_figures(model, None)["patch_filters"]
    assert found.shape == shape
    first = model.tokens.patches.convolutions[0] if stem == "conv" else model.tokens.patches.proj
    weights = first.weight[:, :3].detach().double().flatten(1).numpy()
    vectors = np.linalg.svd(weights, full_matrices=False)[2][: len(found)]
    mine = found.transpose(0, 3, 1, 2).reshape(len(found), -1)
    np.testing.assert_allclose(np.abs((mine * vectors).sum(axis=1)), 1, atol=1e-5)
    assert (mine.max(axis=1) >= -mine.min(axis=1)).all(), "the largest weight is positive"


def full(layer) -> np.ndarray:
    weights = [
        part.weight.detach().double().numpy() for part in (layer if isinstance(layer, torch.nn.Sequential) else [layer])
    ]
    return weights[-1] @ weights[0] if len(weights) == 2 else weights[0]


@pytest.mark.parametrize(
    ("fields", "names"),
    [({"q_rank": 4, "v_rank": 8}, "qv"), ({"kv_rank_shared": 6}, "kv"), ({"num_kv_heads": 1}, ""), ({}, "")],
)
def test_singular_values_are_those_of_the_whole_projections(fields, names):
    model = trained(**fields).model
    found = {name[-1]: array for name, array in model_figures(model, None).items() if name.startswith("singular")}
    assert set(found) == set(names)
    for name, values in found.items():
        assert values.shape[0] == 2
        for block, row in zip(model.blocks, values, strict=True):
            whole = full(getattr(block.attn, name))
            if "kv_rank_shared" in fields:
                whole = whole @ full(block.attn.kv_latent)
            expected = np.linalg.svd(whole, compute_uv=False)[: len(row)]
            np.testing.assert_allclose(row, expected, atol=1e-4)
            assert expected[-1] > 1e-3, "as many as the rank"


@pytest.mark.parametrize("blocks", [{}, {"depth": 1, "block_repeats": 2}], ids=str)
def test_attention_is_that_of_the_predicted_class_image_by_image(blocks, monkeypatch):
    model = trained(num_cls_tokens=2, **blocks)
    found = attention_figures(model, IMAGES, ROWS)
    assert np.array_equal(found["attention_rows"], ROWS) and np.array_equal(found["attention_images"], IMAGES[ROWS])
    maps = model.attention_maps(IMAGES[ROWS])
    for name, mine in zip(("gradient_weighted", "rollout"), found["attention_maps"], strict=True):
        expected = maps.on_patches(getattr(maps, name)()).mean(dim=1).numpy()
        np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-7)
    weights = 2 * 2 * model.model.tokens.num_tokens**2
    monkeypatch.setattr(figures, "MOST_WEIGHTS", 2 * weights)  # two images at a time
    again = attention_figures(model, IMAGES, ROWS)
    np.testing.assert_allclose(again["attention_maps"], found["attention_maps"], rtol=1e-4, atol=1e-7)
    monkeypatch.setattr(figures, "MOST_WEIGHTS", weights - 1)
    assert "too many for the end of a run" in str(attention_figures(model, IMAGES, ROWS)["attention_refused"])


def test_a_model_without_usable_maps_says_why():
    model = trained()
    with torch.no_grad():
        model.model.blocks[0].attn.qkv.weight.fill_(torch.nan)
    assert {name: str(why) for name, why in attention_figures(model, IMAGES, ROWS).items()} == {
        "attention_refused": "the model's attention weights are not finite"
    }
