"""The plain vision transformer against timm's, with the same weights."""

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from pocketvit.model import create_model


def timm_model(ours, **changes):
    """timm's model of the same shape, holding our weights."""
    config = ours.config
    theirs = VisionTransformer(
        img_size=ours.image_size,
        patch_size=config.patch_size,
        num_classes=10,
        embed_dim=config.width,
        depth=config.depth,
        num_heads=config.num_heads,
        mlp_ratio=config.mlp_ratio,
        **changes,
    )
    renamed = {}
    for name, tensor in ours.state_dict().items():
        name = name.replace("tokens.patches.proj", "patch_embed.proj").replace("scale", "ls")
        name = name.replace("tokens.cls", "cls_token").replace("tokens.positions", "pos_embed")
        renamed[name] = tensor
    theirs.load_state_dict(renamed)
    return theirs.eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def spread_weights(model):
    """Weights large enough that every part matters to the logits."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def test_paper_model_equals_timms(images):
    ours = spread_weights(create_model("paper"))
    torch.testing.assert_close(ours(images), timm_model(ours)(images), rtol=1e-5, atol=1e-5)


def test_mean_pooling_equals_timms(images):
    ours = spread_weights(create_model("paper", width=48, depth=2, num_heads=3, pool="mean"))
    theirs = timm_model(ours, global_pool="avg", class_token=False, fc_norm=False)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-5)


def test_oblong_images_equal_timms():
    ours = spread_weights(create_model("paper", width=48, depth=2, num_heads=3, image_size=(16, 24)))
    images = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(ours(images), timm_model(ours)(images), rtol=1e-5, atol=1e-5)


def test_gradients_equal_timms(images):
    ours = spread_weights(create_model("paper", width=48, depth=2, num_heads=3))
    theirs = timm_model(ours)
    for model in (ours, theirs):
        model(images).square().sum().backward()
    ours_total = sum(p.grad.square().sum() for p in ours.parameters())
    theirs_total = sum(p.grad.square().sum() for p in theirs.parameters())
    torch.testing.assert_close(ours_total, theirs_total, rtol=1e-5, atol=0)
