"""Our names of tensors against those of timm's models."""

import pytest
from timm.models.vision_transformer import VisionTransformer

from pocketvit.inference.foreign import our_name, timm_name
from pocketvit.model import create_model


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"pool": "mean"}, {"global_pool": "avg", "class_token": False}),
        ({"layer_scale": 0.1, "num_registers": 2, "qk_norm": True}, {"init_values": 0.1, "reg_tokens": 2, "qk_norm": True}),
    ],
    ids=["plain", "mean", "more tensors"],
)  # fmt: skip
def test_the_same_tensors_by_either_name(ours, theirs):
    size = {"img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0}
    timm_shapes = {k: v.shape for k, v in VisionTransformer(num_classes=10, **size, **theirs).state_dict().items()}
    model = create_model("digits", width=8, depth=2, num_heads=2, **ours)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    assert {our_name(name): shape for name, shape in timm_shapes.items()} == shapes
    renamed = {timm_name(name): shape for name, shape in shapes.items()}
    assert renamed == {name.replace("fc_norm.", "norm."): shape for name, shape in timm_shapes.items()}
