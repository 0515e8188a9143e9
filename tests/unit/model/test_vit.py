"""The model's size, initial weights, stochastic depth and refusals."""

import numpy as np
import pytest
import torch

from pocketvit.config import ModelConfig
from pocketvit.data import load_dataset
from pocketvit.errors import InputError
from pocketvit.inference.trained_model import TrainedModel, load_model
from pocketvit.loading.chunks import drop_path_factors
from pocketvit.model import ViT, create_model
from pocketvit.recipes import IMAGE_SIDE, RECIPES


@pytest.mark.parametrize(
    ("overrides", "count"), [({}, 2_697_610), ({"width": 96}, 685_258), ({"width": 96, "num_cls_tokens": 2}, 686_410)]
)
def test_parameter_counts_are_the_papers(overrides, count):
    assert create_model("paper", **overrides).num_params == count


def test_initial_weights():
    model = create_model("paper")
    weights = dict(model.named_parameters())
    assert abs(weights["blocks.0.attn.qkv.weight"].std().item() - 0.02) < 5e-4
    assert abs(weights["tokens.positions"].std().item() - 0.02) < 1e-3
    assert weights["tokens.cls"].abs().max() > 0
    assert not weights["blocks.3.mlp.fc1.bias"].any()
    assert (weights["norm.weight"] == 1).all() and not weights["norm.bias"].any()
    bound = 48**-0.5
    patch = weights["tokens.patches.proj.weight"]
    assert 0.95 * bound < patch.abs().max() <= bound
    assert abs(patch.std().item() - bound / 3**0.5) < 3e-3


def test_one_generator_gives_one_model():
    def build(seed):
        model = ViT(ModelConfig(width=24, depth=1, num_heads=2), generator=torch.Generator().manual_seed(seed))
        return torch.cat([p.flatten() for p in model.parameters()])

    assert torch.equal(build(0), build(0))
    assert not torch.equal(build(0), build(1))


def test_class_tokens_are_all_read():
    model = create_model("paper", width=24, depth=1, num_heads=2, num_cls_tokens=3)
    assert model.head.in_features == 3 * 24
    assert model.tokens(torch.zeros(1, 3, 32, 32)).shape == (1, 64 + 3, 24)


def test_a_recipes_model_is_for_its_own_images():
    for name, side in IMAGE_SIDE.items():
        assert create_model(name, width=24, depth=1, num_heads=2).image_size == (side, side)
    assert create_model("digits", image_size=(16, 24)).image_size == (16, 24)
    assert load_dataset("digits").image_size == (8, 8)
    assert set(IMAGE_SIDE) == set(RECIPES)


@pytest.mark.parametrize("image_size", [np.int64(16), (np.int32(16), 16), np.array([16, 16])], ids=repr)
def test_a_model_takes_numpys_numbers(image_size, tmp_path):
    model = create_model("digits", image_size=image_size, num_classes=np.uint8(3), width=np.int64(8))
    assert (model.image_size, model.num_classes, model.config.width) == ((16, 16), 3, 8)
    TrainedModel(model, ("a", "b", "c"), (0.5,) * 3, (0.2,) * 3).save(tmp_path / "model.safetensors")
    assert load_model(tmp_path / "model.safetensors").model.image_size == (16, 16)


@pytest.mark.parametrize("image_size", [0, (8, -4), (8,), (8, 8, 3), 8.0, "8"], ids=repr)
def test_an_image_size_that_is_none_is_refused(image_size):
    with pytest.raises(InputError, match=r"^image_size=.*: must be a side or \(height, width\)"):
        create_model("digits", image_size=image_size)


@pytest.mark.parametrize("num_classes", [0, -1, 2.0, "2"], ids=repr)
def test_a_number_of_classes_that_is_none_is_refused(num_classes):
    with pytest.raises(InputError, match="^num_classes=.*: must be a whole number of at least 1$"):
        create_model("digits", num_classes=num_classes)


@pytest.mark.parametrize("stride", [None, 2], ids=["side by side", "overlapping"])
def test_images_of_another_shape_are_refused_with_both(stride):
    model = create_model("digits", patch_stride=stride)
    for compiled in (model, torch.compile(model, backend="eager", fullgraph=True)):
        assert compiled(torch.zeros(2, 3, 8, 8)).shape == (2, 10)
    for shape in ((2, 3, 32, 32), (2, 8, 8, 3), (2, 1, 8, 8), (3, 8, 8)):
        with pytest.raises(InputError) as refused:
            model(torch.zeros(shape))
        assert str(refused.value).startswith(f"images have shape {shape}, not (B, 3, 8, 8); resize them")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("num_kv_heads", [None, 1])
def test_a_model_can_be_traced(num_kv_heads):
    model = create_model("digits", num_kv_heads=num_kv_heads).eval()
    images = torch.randn(2, 3, 8, 8)
    assert torch.jit.trace(model, images)(images).equal(model(images))


def test_skipping_every_branch_leaves_the_tokens():
    model = create_model("paper", width=24, depth=2, num_heads=2)
    images = torch.randn(2, 3, 32, 32)
    skipped = model(images, torch.zeros(2, 2, 2))
    tokens = model.tokens(images)
    assert torch.equal(skipped, model.classify(model.norm(tokens)))
    torch.testing.assert_close(model(images, torch.ones(2, 2, 2)), model(images))


@pytest.mark.parametrize(
    "choices",
    [
        {"num_cls_tokens": 2},
        {"pool": "mean", "num_registers": 2, "num_cls_tokens": 0},
        {"pool": "attention", "num_cls_tokens": 0},
        {"num_registers": 1},
    ],
    ids=str,
)
def test_features_are_all_normed_tokens_and_classify_reads_the_logits_from_them(choices):
    model = create_model("paper", width=24, depth=2, num_heads=2, **choices)
    images, drop_path = torch.randn(3, 3, 32, 32), torch.rand(2, 2, 3)
    tokens = model.features(images, drop_path)
    assert tokens.shape == (3, model.tokens.num_tokens, 24)
    x = model.tokens(images)
    for block, factors in zip(model.blocks, drop_path, strict=True):
        x = block(x, factors)
    torch.testing.assert_close(tokens, model.norm(x))
    torch.testing.assert_close(model.classify(tokens), model(images, drop_path))
    torch.testing.assert_close(model.features(images, drop_path, taken=2), tokens[:, :2])


def test_a_classifier_makes_no_more_tokens_than_it_reads():
    model, seen = create_model("paper", width=24, depth=2, num_heads=2, num_cls_tokens=2), []
    for layer in (model.blocks[1].mlp, model.norm):
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    model(torch.zeros(1, 3, 32, 32))
    assert seen == [2, 2]


@pytest.mark.parametrize("blocks", [{"depth": 5}, {"depth": 1, "block_repeats": 5}], ids=str)
def test_stochastic_depth_rises_linearly_and_keeps_the_mean(blocks):
    config = ModelConfig(**blocks, drop_path=0.4)
    draws = np.random.default_rng(0).random((20_000, 5, 2, 1), dtype=np.float32)
    factors = drop_path_factors(config, draws)
    dropped = (factors == 0).mean(axis=(0, 2, 3))
    np.testing.assert_allclose(dropped, [0, 0.1, 0.2, 0.3, 0.4], atol=0.01)
    np.testing.assert_allclose(factors.mean(axis=(0, 2, 3)), 1, atol=0.02)


def test_refusals_name_the_field():
    with pytest.raises(InputError, match="model.patch_size=5 does not divide images of 32 × 32 pixels"):
        create_model("paper", patch_size=5)
    with pytest.raises(InputError, match="did you mean model.width"):
        create_model("paper", widht=3)
    with pytest.raises(InputError, match="unknown field 'model.heads'; did you mean model.num_heads or model.head?"):
        create_model("paper", heads=3)
    with pytest.raises(InputError, match="did you mean paper"):
        create_model("papper")
