"""Layer-wise decay of the learning rate against timm's parameter groups, and what it does to each optimizer's steps."""

import copy

import pytest
import torch
from optim_cases import NAMES
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from timm.optim import param_groups_layer_decay
from torch import nn

from pocketvit.config import ModelConfig, OptimConfig
from pocketvit.model import ViT
from pocketvit.objectives.classification import Classification
from pocketvit.objectives.drloc import RelativeLocalization
from pocketvit.optim.build import build_optimizers, lr_scales
from pocketvit.training.setup import freeze

THEIRS = {
    "tokens.patches": "patch_embed", "tokens.cls": "cls_token", "tokens.positions": "pos_embed",
    "tokens.registers": "reg_token", "tokens.distilled": "dist_token", "distilled_head": "head_dist",
}  # fmt: skip
"""What timm calls a part."""
DECAY = 0.75


def model_of(*, distilled: bool = False, **fields) -> ViT:
    config = ModelConfig(width=24, num_heads=2, **{"depth": 3} | fields)
    return ViT(
        config, image_size=(16, 16), generator=torch.Generator().manual_seed(0), distilled=distilled, num_classes=3
    )


@pytest.mark.parametrize("depth", [1, 3, 12])
@pytest.mark.parametrize("kind", ["plain", "registers", "distilled"])
def test_scales_equal_timms(kind, depth):
    ours = model_of(depth=depth, num_registers=2 * (kind == "registers"), distilled=kind == "distilled")
    timms = VisionTransformerDistilled if kind == "distilled" else VisionTransformer
    more = {"reg_tokens": 2} if kind == "registers" else {}
    theirs = timms(img_size=16, patch_size=4, num_classes=3, embed_dim=24, depth=depth, num_heads=2, **more)
    names = {parameter: name for name, parameter in theirs.named_parameters()}
    groups = param_groups_layer_decay(theirs, layer_decay=DECAY)
    wanted = {names[p]: group["lr_scale"] for group in groups for p in group["params"]}
    found = {}
    for name, scale in lr_scales(dict(ours.named_parameters()), DECAY).items():
        for part, its_name in THEIRS.items():
            name = name.replace(part, its_name)
        found[name] = scale
    assert found == wanted
    assert len(set(found.values())) == depth + 2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("decay", ["all", "matrices"])
def test_each_parameter_steps_as_with_its_own_learning_rate(name, decay):
    start, steps = model_of(), {}
    scales = lr_scales(dict(start.named_parameters()), 0.5)

    def stepped(config: OptimConfig) -> nn.Module:
        model = copy.deepcopy(start)
        for optimizer in build_optimizers(config, model):
            for group in optimizer.param_groups:
                group["lr"].fill_(group["peak_lr"])
            for group in optimizer.param_groups:
                for p in group["params"]:
                    p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
            optimizer.step()
        return model

    base = {"name": name, "decay": decay, "weight_decay": 0.5}
    for scale in set(scales.values()):
        steps[scale] = dict(stepped(OptimConfig(**base, lr=0.25 * scale, muon_lr=0.5 * scale)).named_parameters())
    for key, parameter in stepped(OptimConfig(**base, lr=0.25, muon_lr=0.5, layer_decay=0.5)).named_parameters():
        torch.testing.assert_close(parameter, steps[scales[key]][key], rtol=1e-5, atol=1e-6)
        assert not torch.equal(parameter, start.get_parameter(key))


@pytest.mark.parametrize("pool", ["mean", "attention", "cls_per_class"])
def test_all_behind_the_last_norm_keeps_its_learning_rate(pool):
    model = model_of(pool=pool, head="linear")
    layers = RelativeLocalization(Classification(2), model, 0.1).layers
    found = lr_scales(dict(model.named_parameters()), 0.5)
    whole = {name for name, scale in found.items() if scale == 1}
    assert whole == {name for name in found if name.startswith(("head.", "pool."))} != set()
    groups = build_optimizers(OptimConfig(layer_decay=0.5), model, layers=layers)[0].param_groups
    (of_layers,) = [group for group in groups if any(p is layers[0].weight for p in group["params"])]
    assert of_layers["peak_lr"] == OptimConfig().lr


def test_a_linear_probe_keeps_its_learning_rate():
    model = model_of(pool="attention")
    freeze(model, "encoder")
    (group,) = build_optimizers(OptimConfig(layer_decay=0.5), model)[0].param_groups
    assert group["peak_lr"] == OptimConfig().lr


def test_without_it_there_are_the_groups_of_old():
    """One group, or two with optim.decay=matrices: each is one kernel on flat memory."""
    for decay, count in (("all", 1), ("matrices", 2)):
        (optimizer,) = build_optimizers(OptimConfig(decay=decay), model_of())
        assert len(optimizer.param_groups) == count
        assert [group["weight_decay"] for group in optimizer.param_groups] == [0.05, 0.0][:count]
