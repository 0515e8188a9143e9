"""The head's kernels against float64, and a whole model's loss with stem and head by kernels.

The tests marked `in_interpreter` are run by `test_stem_kernel.py`, in a process of their own.
"""

import copy

import pytest
import torch
from block_cases import assert_small
from head_cases import HEAD_CASES, HeadCase, assert_head_is_as_float64, head_inputs, head_results
from interpreter import in_interpreter, natively
from training_cases import gradient_errors

from pocketvit.augment.batch import Batch
from pocketvit.config import ModelConfig
from pocketvit.kernels.head import MAX_CLASSES, supported
from pocketvit.kernels.launch import Choice, needs_gpu
from pocketvit.model import ViT
from pocketvit.objectives.classification import Classification


@in_interpreter
@pytest.mark.parametrize("case", HEAD_CASES, ids=str)
def test_values_and_gradients(case):
    assert_head_is_as_float64(case, 1e-5)


@in_interpreter
def test_large_logits_stay_finite():
    """Probabilities of 0 and 1, where the loss is the distance of two logits."""
    inputs = head_inputs(HeadCase(4, 1, 64, 10))
    inputs.weights.w.mul_(1e4)
    plan = HeadCase(4, 1, 64, 10).plan
    found, wanted = head_results(inputs, plan), head_results(inputs, plan, exact=True)
    assert all(tensor.isfinite().all() for tensor in found)
    torch.testing.assert_close(found[0].double(), wanted[0], rtol=1e-5, atol=0)


MODELS = {
    "paper": {},
    "2 CLS": {"num_cls_tokens": 2, "num_registers": 1, "positions": "none"},
    "mean": {"pool": "mean", "num_registers": 2, "positions": "sincos"},
    "overlapping": {"pool": "mean", "num_cls_tokens": 0, "patch_size": 8, "patch_stride": 4},
}


@in_interpreter
@pytest.mark.parametrize("name", MODELS)
def test_a_models_loss_with_its_ends_by_kernels(name, monkeypatch):
    """As beside persistent blocks, which the interpreter cannot run; against plain PyTorch in float64."""
    config = ModelConfig(**{"width": 32, "num_heads": 2, "depth": 1, "patch_size": 4} | MODELS[name])
    model = ViT(config, image_size=(16, 12), num_classes=7, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(
                0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
            )
    model.use_kernels("reference")
    generator = torch.Generator().manual_seed(1)
    images, targets = torch.randn(4, 3, 16, 12, generator=generator), torch.rand(4, 7, generator=generator)
    objective = Classification(6)
    exact = copy.deepcopy(model).double()
    wanted, wanted_logged = objective(exact, Batch(images.double(), targets.double(), None))
    wanted.backward()
    monkeypatch.setattr(ViT, "_beside", lambda self, what, images, why_not: Choice("persistent", why_not()))
    assert (model.stem_kernels(images).reason, model.head_kernels(images).reason) == (None, None)
    loss, logged = objective(model, Batch(images, targets, None))
    loss.backward()
    assert "HeadLoss" in loss.grad_fn.name() and logged.keys() == wanted_logged.keys()
    for name, value in logged.items():
        torch.testing.assert_close(value.double(), wanted_logged[name], rtol=1e-6, atol=0)
        assert not value.requires_grad
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-5, atol=0)
    found = {name: p.grad.double() for name, p in model.named_parameters()}
    assert_small(gradient_errors(found, {name: p.grad for name, p in exact.named_parameters()}), 1e-5)


@natively
@pytest.mark.parametrize(
    ("choices", "stem", "head"),
    [
        ({}, None, None),
        ({"stem": "shifted"}, "model.stem", None),
        ({"pool": "attention"}, None, "model.pool=attention"),
        ({"head": "mlp"}, None, "one linear layer"),
        ({"patch_size": 16}, "numbers", None),
        ({"pool": "cls_per_class"}, None, "one linear layer"),
        ({"distilled": True}, "distillation token", "one linear layer"),
        ({"side": 32}, "schedule.sides", None),
    ],
    ids=str,
)
def test_what_other_ends_fall_back_for(choices, stem, head, monkeypatch):
    """One line each, where the blocks run as persistent kernels."""
    pytest.importorskip("triton")
    monkeypatch.setattr("pocketvit.kernels.launch.INTERPRETED", True)
    given = {name: choices[name] for name in ("distilled", "side") if name in choices}
    config = ModelConfig(**{name: value for name, value in choices.items() if name not in given})
    model, images = ViT(config, image_size=(64, 64), distilled=given.get("distilled", False)), torch.empty(0)
    model.use_side(given.get("side"))
    for blocks, expected in (("persistent", (stem, head)), ("fused", ("blocks run as fused",) * 2)):
        monkeypatch.setattr(ViT, "block_kernels", lambda *_, blocks=blocks: Choice(blocks, None))
        for kernels, reason in zip((model.stem_kernels(images), model.head_kernels(images)), expected, strict=True):
            assert kernels.name == ("persistent" if reason is None else "reference")
            assert kernels.reason is None if reason is None else reason in kernels.reason
    model.use_kernels("fused")
    assert model.stem_kernels(images).name == model.head_kernels(images).name == "reference"


@in_interpreter
def test_what_is_covered():
    cpu = torch.device("cpu")
    assert supported(cpu, 10, 1, 192) is None
    assert "classes" in supported(cpu, MAX_CLASSES + 1, 1, 192)
    assert "tokens" in supported(cpu, 10, 129, 192)
    assert "width" in supported(cpu, 10, 1, 40)


@natively
def test_only_a_gpu_has_kernels():
    assert supported(torch.device("cpu"), 10, 1, 192) == needs_gpu(torch.device("cpu")) is not None
