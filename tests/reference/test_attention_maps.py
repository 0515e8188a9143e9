"""Attention maps against attention written out term by term, and what is made of them against plain loops."""

from pathlib import Path

import numpy as np
import pytest
import torch
from neighbours.linear_attention import linear_attention
from neighbours.locality_attention import locality_attention
from neighbours.sparse_attention import block_pairs, masked_attention, on_grid, strided_pairs, with_cls

from pocketvit.config import ModelConfig
from pocketvit.errors import InputError
from pocketvit.inference.attention_maps import AttentionMaps, attention_maps
from pocketvit.inference.trained_model import TrainedModel
from pocketvit.model import ViT
from pocketvit.usercode import Code

WIDTH, HEADS, SIDE = 24, 4, 16  # 4 × 4 patches
FORMS = {
    "plain": {},
    "low rank": {"q_rank": 8, "k_rank": 8, "v_rank": 8},
    "joint": {"kv_rank_shared": 12, "q_rank": 8},
    "grouped": {"num_kv_heads": 2},
    "multi-query": {"num_kv_heads": 1},
    "normed": {"qk_norm": True},
    "rope": {"positions": "rope", "width": 32},
    "rope, grouped, normed": {"positions": "rope", "num_kv_heads": 1, "qk_norm": True, "width": 32},
    "registers": {"num_registers": 3},
    "three CLS tokens": {"num_cls_tokens": 3},
    "no CLS token": {"pool": "mean", "num_registers": 1},
    "a CLS token a class": {"pool": "cls_per_class"},
    "depth-wise": {"depthwise": 3, "layer_scale": 0.5},
    "repeated": {"depth": 2, "block_repeats": 2},
}
IMAGES = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)


def model_of(**values) -> ViT:
    """A model in float64 with weights large enough to matter."""
    config = ModelConfig(**{"width": WIDTH, "num_heads": HEADS, "depth": 3} | values)
    model, generator = ViT(config, image_size=(SIDE, SIDE), num_classes=5), torch.Generator().manual_seed(0)
    model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model


def maps_of(model: ViT, classes: list[int] | None = None) -> AttentionMaps:
    return attention_maps(model, IMAGES, *torch.tensor([[0.5] * 3, [0.25] * 3], dtype=torch.float64), classes)


def pixels() -> torch.Tensor:
    return ((torch.from_numpy(IMAGES).float() / 255).double().permute(0, 3, 1, 2) - 0.5) / 0.25


def inputs_of(model: ViT) -> list[torch.Tensor]:
    """The tokens that each attention layer reads, (B, N, D)."""
    found = []
    handles = [block.attn.register_forward_pre_hook(lambda _, given: found.append(given[0])) for block in model.blocks]
    with torch.no_grad():
        model.features(pixels())
    for handle in handles:
        handle.remove()
    return found


def explicit(model: ViT, layer, tokens: torch.Tensor) -> np.ndarray:
    """The weights (B, A, N, N) by another implementation, which reads values that each have a channel of their own."""
    q, k, _ = layer.project(tokens, None)
    if layer.q_norm is not None:
        q, k = layer.q_norm(q), layer.k_norm(k)
    if layer.rotary is not None:
        q, k = layer.rotary(q), layer.rotary(k)
    q, k = (x.repeat_interleave(HEADS // x.shape[1], dim=1).detach().numpy() for x in (q, k))
    one, special = np.broadcast_to(np.eye(q.shape[2]), (HEADS, q.shape[2], q.shape[2])), model.tokens.num_special
    match model.config.attention:
        case "standard":
            seen = np.ones((1, 1, 1), dtype=bool)
        case "sparse":  # windows of 2 × 2 patches in two heads, every second patch in the others
            near, far = (on_grid(side, side) for side in (block_pairs(4, 2), strided_pairs(4, 2)))
            seen = np.stack([with_cls(pairs, special) for pairs in (near, near, far, far)])
        case "linear":
            return np.stack([linear_attention(*pair, one) for pair in zip(q, k, strict=True)])
        case "locality":
            temperature = (1 / layer.scale).detach().numpy()
            return np.stack([locality_attention(*pair, one, temperature) for pair in zip(q, k, strict=True)])
    return np.stack([masked_attention(*pair, one, seen) for pair in zip(q, k, strict=True)])


CASES = [(name, form) for name in ("standard", "sparse", "locality", "linear") for form in FORMS]
ROTATED_FEATURES = [("linear", "rope"), ("linear", "rope, grouped, normed")]  # the oracle has none; tested below


@pytest.mark.parametrize(("attention", "form"), [case for case in CASES if case not in ROTATED_FEATURES])
def test_weights_equal_attention_written_out(attention, form):
    model = model_of(attention=attention, **FORMS[form])
    maps, tolerance = maps_of(model), 1e-5 if "rope" in form else 1e-9  # the rotation itself runs in fp32
    want = [explicit(model, b.attn, x) for b, x in zip(model.layers, inputs_of(model), strict=True)]
    np.testing.assert_allclose(maps.weights, np.stack(want), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(maps.logits.double(), model(pixels()), rtol=1e-5, atol=1e-5)  # and nothing else changed
    if attention == "sparse":
        assert (maps.weights == 0).float().mean() > 0.3


def test_rotated_linear_attention_reads_by_its_weights_which_need_not_sum_to_one():
    model = model_of(attention="linear", positions="rope", width=32)
    maps = maps_of(model)
    torch.testing.assert_close(maps.logits.double(), model(pixels()), rtol=1e-5, atol=1e-5)
    assert (maps.weights.sum(dim=4) - 1).abs().max() > 0.01
    shares = maps.rollout().sum(dim=2)
    torch.testing.assert_close(shares, torch.ones_like(shares))


@pytest.mark.parametrize("attention", ["standard", "linear"])
def test_gradients_equal_differences_of_the_logit(attention):
    model, classes = model_of(attention=attention, num_kv_heads=2), [4, 0, 2]
    maps = maps_of(model, classes)
    assert maps.classes.tolist() == classes

    def logits(layer: int, change: torch.Tensor) -> torch.Tensor:
        """The classes' logits with other weights in one layer."""
        attn = model.blocks[layer].attn
        handle = attn.register_forward_hook(lambda _, given, __: attn.read(given[0], attn.weights(given[0]) + change))
        with torch.no_grad():
            found = model.classify(model.features(pixels()))
        handle.remove()
        return found[range(3), classes]

    for layer in range(3):
        direction = torch.randn(maps.weights.shape[1:], generator=torch.Generator().manual_seed(layer)).double()
        slope = (logits(layer, 1e-5 * direction) - logits(layer, -1e-5 * direction)) / 2e-5
        torch.testing.assert_close((maps.gradients[layer] * direction).sum(dim=(1, 2, 3)), slope, rtol=1e-4, atol=1e-6)
        assert slope.abs().min() > 1e-4


def test_rollout_and_gradient_weighted_maps_equal_loops():
    maps = maps_of(model_of(num_cls_tokens=2))
    weights, gradients = maps.weights.numpy(), maps.gradients.numpy()
    for image in range(3):
        rolled, gathered = np.eye(18), np.eye(18)
        for layer in range(3):
            mean = sum(weights[layer, image, head] for head in range(HEADS)) / HEADS
            mixed = 0.5 * mean + 0.5 * np.eye(18)  # Abnar and Zuidema, section 3
            rolled = (mixed / mixed.sum(axis=1, keepdims=True)) @ rolled
            gain = np.maximum(weights[layer, image] * gradients[layer, image], 0).mean(axis=0)  # Chefer et al., 5
            gathered = gathered + gain @ gathered  # 6
        np.testing.assert_allclose(maps.rollout()[image], rolled, rtol=1e-9)
        np.testing.assert_allclose(maps.gradient_weighted()[image], gathered - np.eye(18), atol=1e-12)
        for token in range(2):
            for row in range(4):
                for column in range(4):
                    assert maps.on_patches(maps.rollout())[image, token, row, column] == pytest.approx(
                        rolled[token, 2 + 4 * row + column]
                    )
    assert maps.on_patches(maps.weights).shape == (3, 3, HEADS, 2, 4, 4)


def test_without_cls_tokens_a_map_is_the_mean_over_the_patches():
    maps = maps_of(model_of(pool="mean", num_registers=1))
    found = maps.on_patches(maps.weights)
    assert found.shape == (3, 3, HEADS, 1, 4, 4)
    want = maps.weights[..., 1:, 1:].mean(dim=3)  # (L, B, A, P)
    torch.testing.assert_close(found[:, :, :, 0].flatten(3), want)


def test_features_are_what_the_head_reads():
    for form, shape in (("three CLS tokens", (3, 72)), ("no CLS token", (3, 24)), ("a CLS token a class", (3, 5, 24))):
        trained = trained_of(model_of(**FORMS[form]).float())
        features = trained.features(IMAGES)
        assert features.shape == shape
        torch.testing.assert_close(trained.model.head(features), trained.logits(IMAGES), rtol=1e-5, atol=1e-5)
        assert trained.model.head(features).requires_grad, "a layer can be trained on them"
        assert trained.features(IMAGES[:0]).shape == (0, *shape[1:])


def trained_of(model: ViT) -> TrainedModel:
    return TrainedModel(model, tuple("abcde"), (0.5,) * 3, (0.25,) * 3)


def test_a_model_is_left_as_it_was_and_frozen_ones_have_gradients():
    model = model_of().float().train()
    model.use_kernels("auto")
    model.requires_grad_(False)
    with torch.inference_mode():
        maps = trained_of(model).attention_maps(IMAGES)
    assert maps.gradients.abs().max() > 0
    assert maps.classes.tolist() == maps.logits.argmax(dim=1).tolist()
    assert model.training and model.kernels == model.blocks[0].attn.kernels == "auto"
    assert not any(block.attn._forward_hooks for block in model.blocks)


def test_what_has_no_maps_is_refused():
    trained = trained_of(model_of().float())
    with pytest.raises(InputError, match="there is no image"):
        trained.attention_maps(IMAGES[:0])
    for classes in ([0, 1], [0, 1, 5], [0, 1, -1]):
        with pytest.raises(InputError, match="classes must be 3 numbers from 0 to 4"):
            trained.attention_maps(IMAGES, classes)
    mine = Path(__file__).parents[2] / "docs" / "examples" / "my_attention.py"
    model = ViT(
        ModelConfig(width=24, depth=1, num_heads=2, attention=Code.read(f"{mine}:MyAttention")), image_size=(SIDE, SIDE)
    )
    with pytest.raises(InputError, match="my_attention.py:MyAttention mixes tokens in its own way.*standard"):
        attention_maps(model, IMAGES, torch.zeros(3), torch.ones(3))
