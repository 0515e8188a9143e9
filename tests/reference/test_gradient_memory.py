"""Gradients that kernels write where a flat optimizer wants them: no copies, and the same steps as with gathering."""

import pytest
import torch
from interpreter import natively
from torch import nn

from pocketvit.kernels.fold import stack
from pocketvit.kernels.gradient_memory import SPARE, gather, room_for, whole_array

flat = pytest.importorskip("pocketvit.optim.flat", reason="needs Triton")


class Doubled(torch.autograd.Function):
    """2 · tensor, whose gradient goes where it is wanted."""

    @staticmethod
    def forward(ctx, tensor):
        ctx.tensor = tensor
        return 2 * tensor

    @staticmethod
    def backward(ctx, grad):
        room = room_for(ctx.tensor)
        room.copy_(2 * grad)
        return room


def parameters() -> list[nn.Parameter]:
    """Of three layers with a weight and a bias each, and one of a size that comes last in memory."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(5,), *[(4, 8), (16,)] * 3]
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def offered(params: list[nn.Parameter]) -> flat.AdamW:
    optimizer = flat.AdamW(params)
    optimizer.offer_gradient_memory()
    return optimizer


def places(optimizer: flat.AdamW) -> list[int]:
    """Addresses of the gradients' places, by parameter."""
    ((flat_params, _),) = optimizer._flat
    first = optimizer._gradients[0].data_ptr()
    return [first + p.data_ptr() - flat_params.data_ptr() for p in optimizer.param_groups[0]["params"]]


@natively
def test_a_gradient_is_left_where_it_is_wanted():
    params = parameters()
    optimizer = offered(params)
    for _ in range(2):
        sum(Doubled.apply(p).sum() for p in params).backward()
        assert [p.grad.data_ptr() for p in params] == places(optimizer)
        assert all((p.grad == 2).all() for p in params)
        array = whole_array(params)
        assert array is optimizer._gradients[0] and array.numel() == 149 + SPARE
        assert whole_array(params[1:]) is None, "not all that the array holds"
        optimizer.zero_grad()
        assert whole_array(params) is None


@natively
def test_a_stack_of_parameters_has_its_parts_places():
    params = parameters()
    optimizer = offered(params)
    weights, biases = stack(params[1::2]), stack(params[2::2])
    (Doubled.apply(weights).sum() + (3 * Doubled.apply(biases)).sum() + Doubled.apply(params[0]).sum()).backward()
    assert [p.grad.data_ptr() for p in params] == places(optimizer)
    assert [p.grad.unique().item() for p in params] == [2, 2, 6, 2, 6, 2, 6]


@natively
def test_a_second_gradient_gets_other_memory():
    """Of a parameter that is used twice, by itself and in a stack, and of a second backward before a step."""
    params = parameters()
    optimizer = offered(params)
    for _ in range(2):
        twice = Doubled.apply(stack(params[1::2])).sum() + sum((5 * Doubled.apply(p)).sum() for p in params)
        twice.backward()
        assert [p.grad.unique().item() for p in params] == [10, *[12, 10] * 3]
        sum(Doubled.apply(p).sum() for p in params).backward()
        assert [p.grad.unique().item() for p in params] == [12, *[14, 12] * 3]
        gather(flat.in_order(params))
        (values,) = optimizer._gradients
        assert values[:-SPARE].tolist() == [*[*[14.0] * 32, *[12.0] * 16] * 3, *[12.0] * 5]
        optimizer.zero_grad()


@natively
def test_gradients_that_are_made_zero_keep_their_places():
    params = parameters()
    optimizer = offered(params)
    sum(Doubled.apply(p).sum() for p in params).backward()
    optimizer.zero_grad(set_to_none=False)
    sum((4 * Doubled.apply(p)).sum() for p in params).backward()
    assert [p.grad.unique().item() for p in params] == [8] * 7 and whole_array(params) is not None


@natively
def test_without_an_offer_memory_is_new():
    params = parameters()
    sum(Doubled.apply(p).sum() for p in params).backward()
    assert all((p.grad == 2).all() for p in params) and whole_array(params) is None
    assert whole_array([]) is None
