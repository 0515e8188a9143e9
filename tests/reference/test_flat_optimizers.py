"""AdamW and Lion over flat memory against their oracles, step by step; the kernels run in Triton's interpreter.

Triton reads TRITON_INTERPRET when it is first imported, so the tests marked `in_interpreter` are skipped here and run
by `test_kernel_in_the_interpreter` in a process of their own.
"""

import copy

import numpy as np
import pytest
import torch
from interpreter import assert_green_in_the_interpreter, in_interpreter, natively
from torch import Tensor, nn

from pocketvit.augment.batch import BatchMaker
from pocketvit.config import ModelConfig, OptimConfig
from pocketvit.errors import InputError
from pocketvit.kernels.fold import stack as as_one
from pocketvit.model import ViT
from pocketvit.objectives.classification import Classification
from pocketvit.optim.build import build_optimizers
from pocketvit.optim.lion import Lion
from pocketvit.optim.state import create_state, state_tensors
from pocketvit.training.distributed import ALONE
from pocketvit.training.step import TrainStep, batch_loss

SHAPES = [(7, 5), (32, 16), (5,), (3, 2, 4, 4), (), (1025,), (64, 16)]
"""Some break the alignment of what follows, and the whole is no multiple of a block."""
STEPS = 6


def draw(seed: int) -> list[Tensor]:
    """A tensor for each of `SHAPES`."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def start() -> list[nn.Parameter]:
    return [nn.Parameter(tensor) for tensor in draw(0)]


def lr_at(step: int) -> float:
    return 0.01 / (1 + step)


def groups_of(params: list[nn.Parameter], decays: tuple[float, ...]) -> list[dict]:
    """The parameters in turn to as many groups as there are decays."""
    return [{"params": params[i :: len(decays)], "weight_decay": decay} for i, decay in enumerate(decays)]


def train(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], steps: range) -> None:
    """Steps with a changing learning rate; ours keeps it in a tensor, torch's in a float."""
    for step in steps:
        for group in optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr_at(step))
            else:
                group["lr"] = lr_at(step)
        for param, grad in zip(params, draw(step + 1), strict=True):
            param.grad = grad.to(param.dtype)
        optimizer.step()


def make(params, **values):
    """Ours; imported late because it needs Triton."""
    return pytest.importorskip("pocketvit.optim.flat", reason="needs Triton").AdamW(params, **values)


def model_of(depth: int = 3) -> ViT:
    config = ModelConfig(width=32, num_heads=2, depth=depth, mlp_ratio=1, patch_size=16, num_cls_tokens=2)
    return ViT(config, generator=torch.Generator().manual_seed(0))


@natively
def test_kernel_in_the_interpreter():
    assert_green_in_the_interpreter("reference/test_flat_optimizers.py", "property/test_flat_optimizers_property.py")


# ---------------------------------------------------------------- the update


@in_interpreter
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.8, 0.95), (0.0, 0.99), (0.9, 0.0)], ids=str)
@pytest.mark.parametrize("decays", [(0.0,), (0.3,), (0.3, 0.0)], ids=str)
def test_equals_torch(decays, betas):
    params, reference = start(), [nn.Parameter(tensor.double()) for tensor in draw(0)]
    train(make(groups_of(params, decays), lr=0.0, betas=betas), params, range(STEPS))
    train(torch.optim.AdamW(groups_of(reference, decays), betas=betas), reference, range(STEPS))
    for param, expected, initial in zip(params, reference, draw(0), strict=True):
        torch.testing.assert_close(param.double(), expected, rtol=1e-5, atol=1e-4 * lr_at(0))
        assert (param - initial).abs().max() > 0.1 * lr_at(0)  # it has moved by far more than the tolerance


@in_interpreter
@pytest.mark.parametrize("decays", [(0.0,), (0.3, 0.0)], ids=str)
def test_adam_equals_torch(decays):
    from pocketvit.optim import flat

    params, reference = start(), [nn.Parameter(tensor.double()) for tensor in draw(0)]
    train(flat.Adam(groups_of(params, decays), lr=0.0), params, range(STEPS))
    train(torch.optim.Adam(groups_of(reference, decays)), reference, range(STEPS))
    for param, expected in zip(params, reference, strict=True):
        torch.testing.assert_close(param.double(), expected, rtol=1e-5, atol=1e-4 * lr_at(0))


@in_interpreter
@pytest.mark.parametrize("betas", [(0.9, 0.99), (0.0, 0.5)], ids=str)
@pytest.mark.parametrize("decays", [(0.0,), (0.3, 0.0)], ids=str)
def test_lion_equals_the_plain_one(decays, betas):
    from pocketvit.optim import flat

    params, reference = start(), start()
    ours = flat.Lion(groups_of(params, decays), lr=0.0, betas=betas)
    theirs = Lion(groups_of(reference, decays), lr=0.0, betas=betas)
    train(ours, params, range(STEPS))
    train(theirs, reference, range(STEPS))
    for param, expected, initial in zip(params, reference, draw(0), strict=True):
        torch.testing.assert_close(param, expected, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(ours.state[param], theirs.state[expected], rtol=1e-6, atol=1e-6)
        assert (param - initial).abs().max() > 1e-4  # signs cancel, but not to the tolerance


@in_interpreter
@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_cautious_decay_equals_the_plain_ones(name):
    config, weights = OptimConfig(name=name, cautious_decay=True, weight_decay=0.5), []
    for fused in (True, False):
        layers = nn.ParameterList(start())
        (optimizer,) = build_optimizers(config, layers, fused=fused)
        train(optimizer, list(layers), range(STEPS))
        weights.append(list(layers))
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-5, atol=1e-6)
    plain = nn.ParameterList(start())
    train(*build_optimizers(OptimConfig(name=name, weight_decay=0.5), plain), list(plain), range(STEPS))
    assert any(not torch.allclose(a, b, rtol=1e-4) for a, b in zip(weights[0], plain, strict=True))


@in_interpreter
def test_moments_equal_torchs():
    params, reference = start(), start()
    ours, theirs = make(params, lr=0.0), torch.optim.AdamW(reference)
    train(ours, params, range(STEPS))
    train(theirs, reference, range(STEPS))
    for param, other in zip(params, reference, strict=True):
        torch.testing.assert_close(ours.state[param], theirs.state[other], rtol=1e-5, atol=1e-7)


@in_interpreter
def test_a_saved_state_goes_on_in_another_instance():
    params, others = start(), start()
    ours, other = (make(groups_of(p, (0.3, 0.0)), lr=0.0) for p in (params, others))
    train(ours, params, range(STEPS // 2))
    kept = {param: dict(state) for param, state in other.state.items()}
    other.load_state_dict(copy.deepcopy(ours.state_dict()))
    with torch.no_grad():
        for mine, new in zip(others, params, strict=True):
            mine.copy_(new)
    train(ours, params, range(STEPS // 2, STEPS))
    train(other, others, range(STEPS // 2, STEPS))
    assert all(torch.equal(a, b) for a, b in zip(params, others, strict=True))
    assert all(kept[param][name] is tensor for param, state in other.state.items() for name, tensor in state.items())


@in_interpreter
def test_torchs_state_goes_on_in_ours():
    params, reference = start(), start()
    ours, theirs = make(params, lr=0.0, weight_decay=0.3), torch.optim.AdamW(reference, weight_decay=0.3)
    train(theirs, reference, range(STEPS // 2))
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    with torch.no_grad():
        for mine, new in zip(params, reference, strict=True):
            mine.copy_(new)
    train(ours, params, range(STEPS // 2, STEPS))
    train(theirs, reference, range(STEPS // 2, STEPS))
    torch.testing.assert_close(params, reference, rtol=0, atol=1e-6)


@natively
@pytest.mark.parametrize(("name", "value"), [("betas", (0.9, 1.0)), ("betas", (-0.1, 0.9)), ("eps", -1.0),
                                             ("lr", -1.0), ("weight_decay", -0.1)])  # fmt: skip
def test_values_out_of_range_are_refused(name, value):
    with pytest.raises(InputError, match=f"^{name}="):
        make(start(), **{name: value})


@natively
def test_a_missing_gradient_is_refused():
    params = start()
    optimizer = make(params)
    for param, grad in zip(params[1:], draw(1)[1:], strict=True):
        param.grad = grad
    with pytest.raises(InputError, match="AdamW: 1 of 7 parameters of a group have no gradient"):
        optimizer.step()


# ---------------------------------------------------------------- memory


@natively
def test_parameters_keep_values_and_shapes_when_moved():
    params = start()
    optimizer = make(groups_of(params, (0.3, 0.0)))
    for param, expected in zip(params, draw(0), strict=True):
        assert param.shape == expected.shape and torch.equal(param, expected) and param.is_leaf
        assert all(optimizer.state[param][name].shape == param.shape for name in ("exp_avg", "exp_avg_sq"))
    for group in optimizer.param_groups:
        in_memory = sorted(group["params"], key=lambda param: param.data_ptr())
        first = in_memory[0].data_ptr()
        ends = [param.data_ptr() + 4 * param.numel() for param in in_memory]
        assert [param.data_ptr() for param in in_memory] == [first, *ends[:-1]], "one piece without gaps"
        assert all((param.data_ptr() - first) % 64 == 0 for param in in_memory if param.numel() % 16 == 0)


def stacked(model: ViT) -> list[list[Tensor]]:
    """Tensors of one kind of all blocks."""
    layers = [dict(block.named_parameters()) for block in model.blocks]
    return [[layer[name] for layer in layers] for name in layers[0]]


@natively
@pytest.mark.parametrize("decay", ["all", "matrices"])
def test_stacks_are_views_where_parameters_are_laid_out(decay):
    pytest.importorskip("triton")
    model = model_of()
    assert all(as_one(kind).data_ptr() != kind[0].data_ptr() for kind in stacked(model)), "apart, so copied"
    build_optimizers(OptimConfig(decay=decay), model, fused=True)
    for kind in stacked(model):
        stack = as_one(kind)
        assert stack.data_ptr() == kind[0].data_ptr(), "no copy"
        assert torch.equal(stack, torch.stack(kind))
        dout = torch.randn(stack.shape, generator=torch.Generator().manual_seed(0))
        for f in (as_one, torch.stack):
            assert torch.equal(torch.stack(torch.autograd.grad(f(kind), kind, dout)), dout)


@natively
def test_stacks_of_other_tensors_are_copies():
    memory = torch.arange(60.0)
    even = [memory[i : i + 8].view(2, 4) for i in (0, 16, 32)]
    assert as_one(even).data_ptr() == memory.data_ptr()
    backwards, uneven, apart, one = even[::-1], [*even, memory[49:57].view(2, 4)], [t.clone() for t in even], even[:1]
    for tensors in (backwards, uneven, apart, one):
        stack = as_one(tensors)
        assert torch.equal(stack, torch.stack(tensors))
        assert stack.untyped_storage().data_ptr() != tensors[0].untyped_storage().data_ptr()


# ---------------------------------------------------------------- in the training step


@in_interpreter
@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "lion", "muon", "soap_muon"])
def test_state_is_made_and_named_as_with_torchs(name):
    config, states = OptimConfig(name=name, decay="matrices"), []
    for fused in (True, False):
        model = model_of(depth=1)
        before = copy.deepcopy(model.state_dict())
        optimizers = build_optimizers(config, model, fused=fused)
        assert isinstance(optimizers[-1], torch.optim.Adam) == (not fused and name not in ("sgd", "lion"))
        create_state(optimizers)
        assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
        states.append(state_tensors(optimizers, {p: key for key, p in model.named_parameters()}))
    ours, theirs = states
    assert ours.keys() == theirs.keys()
    torch.testing.assert_close(ours, theirs)
    assert not any(tensor.any() for tensor in ours.values())


@in_interpreter
def test_a_checkpoint_of_either_goes_on_in_the_other():
    """The states of two training steps, one with each AdamW, hold the same tensors and the same numbers."""
    loss = batch_loss(Classification(2), BatchMaker(torch.zeros(3), torch.ones(3), 10, 0.1), bf16=False)
    steps = []
    for fused in (True, False):
        model = model_of(depth=1)
        model.use_kernels("reference")
        optimizers = build_optimizers(OptimConfig(), model, fused=fused)
        steps.append(TrainStep(model, optimizers, loss, ema=None, factors=np.full(4, 0.5),
                               processes=ALONE, cuda_graph=False))  # fmt: skip
    generator = torch.Generator().manual_seed(1)

    def update(step: TrainStep, grads: list[Tensor]) -> None:
        (optimizer,) = step.optimizers
        optimizer.param_groups[0]["lr"].fill_(0.01)
        for parameter, grad in zip(step.model.parameters(), grads, strict=True):
            parameter.grad = grad.clone()
        optimizer.step()

    for source, target in (steps, steps[::-1]):
        grads = [torch.randn(parameter.shape, generator=generator) for parameter in source.model.parameters()]
        update(source, grads)
        target.load_state({key: tensor.clone() for key, tensor in source.state().items()})
        torch.testing.assert_close(target.state(), source.state(), rtol=0, atol=0, equal_nan=True)
        for step in (source, target):
            update(step, grads)
        torch.testing.assert_close(target.state(), source.state(), rtol=1e-5, atol=1e-6, equal_nan=True)
