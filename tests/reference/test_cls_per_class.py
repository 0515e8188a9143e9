"""One CLS token a class against a loop, and what it does to the model."""

import numpy as np
import pytest
import torch
from neighbours.cls_per_class import cls_per_class_dot_logits, head_num_params

from pocketvit.config import ModelConfig
from pocketvit.errors import InputError
from pocketvit.inference.trained_model import TrainedModel, load_model
from pocketvit.model import ViT, create_model

CLASSES, WIDTH = 5, 24


def model_of(**values) -> ViT:
    config = ModelConfig(**{"pool": "cls_per_class", "width": WIDTH, "num_heads": 2, "depth": 2} | values)
    return ViT(config, num_classes=CLASSES, generator=torch.Generator().manual_seed(0))


def test_each_logit_is_read_from_its_own_token():
    model, images = model_of(num_registers=2), torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        model.head.bias.copy_(torch.arange(5.0))
        tokens = model.features(images)
        assert tokens.shape == (3, CLASSES + 2 + 64, WIDTH)
        weight, bias = model.head.weight.numpy(), model.head.bias.numpy()
        want = cls_per_class_dot_logits(tokens[:, :CLASSES].numpy(), weight, bias)
        np.testing.assert_allclose(model(images), want, rtol=1e-5, atol=1e-6)


def test_gradients_reach_every_class_token_at_once():
    model = model_of()
    model(torch.randn(3, 3, 32, 32))[:, 2].sum().backward()
    assert model.head.weight.grad[2].any() and not model.head.weight.grad[[0, 1, 3, 4]].any()
    assert model.tokens.cls.grad[0, 2].any()


def test_the_number_of_classes_is_the_number_of_tokens_and_of_no_other_field(tmp_path):
    model, plain = model_of(), create_model("paper", num_classes=CLASSES, width=WIDTH, num_heads=2, depth=2)
    assert model.tokens.num_cls == CLASSES and model.tokens.num_tokens == CLASSES + 64
    head = head_num_params(CLASSES, WIDTH, learned=True)
    assert model.num_params - plain.num_params == head + 4 * WIDTH - (WIDTH + CLASSES * (WIDTH + 1))
    trained = TrainedModel(model, tuple("abcde"), (0.5,) * 3, (0.2,) * 3)
    trained.save(tmp_path / "model.safetensors")
    assert load_model(tmp_path / "model.safetensors").model.tokens.num_cls == CLASSES
    with pytest.raises(InputError, match="model.num_cls_tokens=2 has no effect with model.pool=cls_per_class"):
        model_of(num_cls_tokens=2)
    with pytest.raises(InputError, match="model.head=mlp .* model.pool=cls_per_class"):
        model_of(head="mlp")


def test_the_last_block_makes_only_class_tokens():
    model, seen = model_of(), []
    model.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    model(torch.zeros(1, 3, 32, 32))
    assert seen == [CLASSES]
