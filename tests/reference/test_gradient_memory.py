"""Gradients that kernels write where a flat optimizer wants them: no copies, and the same steps as with gathering.

The tests marked `in_interpreter` are run by `test_stem_kernel.py`, in a process of their own.
"""

import pytest
import torch
from interpreter import in_interpreter, natively
from torch import Tensor, nn

from pocketvit.config import ModelConfig, OptimConfig
from pocketvit.kernels.block_weights import BlockNorms
from pocketvit.kernels.fold import stack
from pocketvit.kernels.gradient_memory import SPARE, gather, room_for, whole_array
from pocketvit.model import ViT
from pocketvit.model.folded import repeated
from pocketvit.optim.build import build_optimizers, offer_gradient_memory

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
def test_the_sum_over_a_repeated_layer_is_copied_to_its_place():
    params = parameters()
    optimizer = offered(params)
    layers = BlockNorms(stack(params[1::2]), None, stack(params[2::2]), None)
    for _ in range(2):
        weights, _, biases, _ = repeated(layers, 3)
        scales = torch.tensor([1.0, 2.0, 3.0] * 3)[:, None]  # of the three times
        weighed = (scales[..., None] * Doubled.apply(weights)).sum() + (scales * Doubled.apply(biases)).sum()
        (Doubled.apply(params[0]).sum() + weighed).backward(retain_graph=True)
        assert whole_array(params) is None
        gather(flat.in_order(params))
        (values,) = optimizer._gradients
        assert values[:-SPARE].tolist() == [12.0] * 3 * 48 + [2.0] * 5
        optimizer.zero_grad()


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


def small_model() -> ViT:
    config = ModelConfig(width=32, num_heads=2, depth=2, mlp_ratio=1, patch_size=4, num_cls_tokens=2, num_registers=1)
    return ViT(config, image_size=(8, 8), generator=torch.Generator().manual_seed(0))


@in_interpreter
@pytest.mark.parametrize("name", ["adamw", "lion"])
@pytest.mark.parametrize("decay", ["all", "matrices"])
def test_steps_are_those_of_gathered_gradients(name, decay):
    """Bit for bit, with stem and head by kernels that write in place, and blocks whose gradients are copied there."""
    from pocketvit.kernels.head import head_loss
    from pocketvit.kernels.stem import stem
    from pocketvit.model.ends import head_parts, stem_parts

    generator = torch.Generator().manual_seed(1)
    batches = [(torch.randn(2, 3, 8, 8, generator=generator), torch.rand(2, 10, generator=generator)) for _ in range(2)]
    trained: list[list[Tensor]] = []
    for in_place in (True, False):
        model = small_model()
        optimizers = build_optimizers(OptimConfig(name=name, decay=decay), model, fused=True)
        if in_place:
            offer_gradient_memory(optimizers)
        for group in optimizers[0].param_groups:
            group["lr"].fill_(0.01)
        for images, targets in batches:
            weights, plan = stem_parts(model.tokens)
            tokens = model.refine(stem(images, weights, plan), taken=2)
            head_loss(tokens, targets, *head_parts(model, 1 / 2))[0].backward()
            if in_place:
                ends = [*model.tokens.parameters(), *model.norm.parameters(), *model.head.parameters()]
                arrays = list(optimizers[0]._gradients)
                assert all(any(holds(array, p.grad) for array in arrays) for p in ends)
            optimizers[0].step()
            optimizers[0].zero_grad()
        trained.append([p.detach() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*trained, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(trained[0], small_model().parameters(), strict=True))


def holds(array: Tensor, part: Tensor) -> bool:
    return array.untyped_storage().data_ptr() == part.untyped_storage().data_ptr()
