"""What a captured training step relies on: everything that changes lives in tensors that keep their place."""

import copy
import inspect
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from optim_cases import NAMES
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pocketvit.errors import InputError
from pocketvit.optim.capturable import CapturableOptimizer
from pocketvit.optim.ema import EMA
from pocketvit.optim.sgd import SGD


def class_of(name: str) -> Any:
    """The optimizer in the module of a value of `optim.name`, if it is ours and not PyTorch's."""
    module = import_module(f"pocketvit.optim.{name}")
    ours = (kind for kind in vars(module).values() if inspect.isclass(kind) and kind.__module__ == module.__name__)
    return next((kind for kind in ours if issubclass(kind, CapturableOptimizer)), None)


KINDS = {name: kind for name in NAMES if (kind := class_of(name))} | {"sgd": partial(SGD, momentum=0.9)}
OPTIMIZERS = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


def test_all_are_found():
    assert KINDS.keys() >= {"lion", "muon", "soap_muon", "sgd"}


def weights() -> list[nn.Parameter]:
    """Three matrices: wide, tall and square."""
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in [(4, 6), (6, 4), (5, 5)]]


def run(optimizer: CapturableOptimizer, params: list[nn.Parameter], steps: range) -> None:
    """Steps whose gradients depend on the step alone."""
    for step in steps:
        for i, param in enumerate(params):
            param.grad = torch.randn(param.shape, generator=torch.Generator().manual_seed(100 * step + i))
        optimizer.step()


@OPTIMIZERS
def test_numpys_numbers_leave_a_state_that_loads(make, tmp_path):
    params = weights()
    given = (
        {"betas": np.array([0.9, 0.5])}
        if "betas" in inspect.signature(make).parameters
        else {"momentum": np.float32(0.5)}
    )
    optimizer = make(params, lr=np.float32(0.5), weight_decay=np.float64(0.5), **given)
    run(optimizer, params, range(2))
    torch.save(optimizer.state_dict(), tmp_path / "state")
    optimizer.load_state_dict(torch.load(tmp_path / "state"))


def state_tensors(optimizer: CapturableOptimizer) -> list[Tensor]:
    return [tensor for state in optimizer.state.values() for tensor in state.values()]


def same(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@OPTIMIZERS
def test_lr_is_a_tensor_that_the_loop_changes_in_place(make):
    params, reference = weights(), weights()
    optimizer = make(params, lr=0.5)
    lr = optimizer.param_groups[0]["lr"]
    assert lr.shape == () and lr.dtype == torch.float32
    lr.copy_(torch.tensor(0.01, dtype=torch.float64))
    run(optimizer, params, range(1))
    run(make(reference, lr=0.01), reference, range(1))
    assert optimizer.param_groups[0]["lr"] is lr
    assert same(params, reference)


@OPTIMIZERS
def test_groups_can_share_one_lr_tensor(make):
    lr, params = torch.tensor(0.01), weights()
    optimizer = make([{"params": params[:1]}, {"params": params[1:], "weight_decay": 0.1}], lr=lr)
    assert all(group["lr"] is lr for group in optimizer.param_groups)


@OPTIMIZERS
def test_groups_have_their_own_decay(make):
    params, without = weights(), weights()
    optimizer = make([{"params": params[:1]}, {"params": params[1:], "weight_decay": 0.1}], lr=0.5)
    run(optimizer, params, range(2))
    run(make(without, lr=0.5), without, range(2))
    assert torch.equal(params[0], without[0])
    assert not torch.equal(params[1], without[1])


@OPTIMIZERS
def test_state_begins_as_zeros_and_keeps_its_place(make):
    params, reference = weights(), weights()
    start = [param.detach().clone() for param in params]
    optimizer = make(params, lr=0.01, weight_decay=0.1)
    assert not optimizer.state
    run(optimizer, params, range(2))  # a warm-up, undone in place
    tensors = state_tensors(optimizer)
    with torch.no_grad():
        for tensor in tensors:
            tensor.zero_()
        for param, value in zip(params, start, strict=True):
            param.copy_(value)

    run(optimizer, params, range(3))
    run(make(reference, lr=0.01, weight_decay=0.1), reference, range(3))
    assert same(params, reference)
    assert all(now is before for now, before in zip(state_tensors(optimizer), tensors, strict=True))
    assert all(tensor.dtype == torch.float32 for tensor in tensors)


@OPTIMIZERS
def test_resume_equals_uninterrupted_bit_for_bit(make):
    params = weights()
    optimizer = make(params, lr=0.01, weight_decay=0.1)
    run(optimizer, params, range(3))
    saved = copy.deepcopy(optimizer.state_dict())
    resumed = [nn.Parameter(param.detach().clone()) for param in params]
    run(optimizer, params, range(3, 6))

    fresh = make(resumed, lr=0.9)  # another rate: the saved one must replace it
    fresh.load_state_dict(saved)
    run(fresh, resumed, range(3, 6))
    assert same(params, resumed)


@OPTIMIZERS
def test_load_into_a_warm_optimizer_keeps_its_tensors(make):
    params, warm_params = weights(), weights()
    optimizer = make(params, lr=0.01)
    before_any_step = copy.deepcopy(optimizer.state_dict())
    run(optimizer, params, range(2))
    warm = make(warm_params, lr=0.9)
    run(warm, warm_params, range(5, 6))
    tensors = [warm.param_groups[0]["lr"], *state_tensors(warm)]

    warm.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    now = [warm.param_groups[0]["lr"], *state_tensors(warm)]
    assert all(a is b for a, b in zip(now, tensors, strict=True))
    assert same(now, [optimizer.param_groups[0]["lr"], *state_tensors(optimizer)])

    warm.load_state_dict(before_any_step)
    assert all(a is b for a, b in zip(state_tensors(warm), tensors[1:], strict=True))
    assert not any(tensor.any() for tensor in state_tensors(warm))


@OPTIMIZERS
def test_parameters_without_gradient_stay(make):
    params = weights()
    optimizer = make(params, lr=0.01, weight_decay=0.1)
    before = params[1].detach().clone()
    params[0].grad = torch.ones_like(params[0])
    optimizer.step()
    assert torch.equal(params[1], before)
    assert params[1] not in optimizer.state
    assert params[0] in optimizer.state


@OPTIMIZERS
def test_closure_is_run_with_gradients(make):
    params = weights()
    optimizer = make(params, lr=0.01)

    def closure() -> Tensor:
        loss = sum(param.square().sum() for param in params)
        loss.backward()
        return loss

    assert optimizer.step(closure).requires_grad
    assert len(optimizer.state) == 3


class NoReading(TorchDispatchMode):
    """Fails where Python asks for a tensor's value: on a GPU that waits for the device, and breaks a capture."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@OPTIMIZERS
def test_a_step_reads_no_tensor(make):
    params = weights()
    optimizer = make(params, lr=0.01, weight_decay=0.1)
    ema = EMA({str(i): param for i, param in enumerate(params)}, 0.9)
    run(optimizer, params, range(1))
    with NoReading():
        optimizer.step()
        ema.update()


@OPTIMIZERS
def test_steps_lower_a_loss(make):
    params = weights()
    optimizer = make(params, lr=0.05)
    losses = []
    for _ in range(60):
        loss = sum((param - 1).square().mean() for param in params)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@OPTIMIZERS
@pytest.mark.parametrize(("name", "value"), [("lr", -1.0), ("lr", float("nan")), ("weight_decay", -0.1)])
def test_values_out_of_range_are_refused(make, name, value):
    with pytest.raises(InputError, match=name):
        make(weights(), **{"lr": 0.1, name: value})
