"""Where gradients are wanted: memory that an optimizer keeps, so that nobody has to gather them.

A flat optimizer updates all parameters of a group as one array, and needs their gradients as another. Gathering them is a
pass over memory in every step, 16 µs for the paper's model, and another one before several processes add theirs.
So the optimizer offers each parameter's place in its array, and a kernel that computes that gradient takes the place and
writes there. PyTorch keeps a gradient that nobody else refers to as it is, so `parameter.grad` is then the place.

A place is given away once, until the optimizer forgets the gradients: if a parameter is used twice in a step, the second
gradient gets other memory, and PyTorch adds the two. What is not in its place in the end, the optimizer copies there.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

SPARE = 16
"""Numbers behind the gradients of such an array, for what is summed with them over several processes."""


class _Room:
    """The place of a parameter's gradient in an array."""

    def __init__(self, array: Tensor, place: Tensor) -> None:
        self.array, self.place, self.free = array, place, True


class _Offer(NamedTuple):
    """The place of a tensor's gradient, which is several rooms if the tensor is a stack of parameters."""

    place: Tensor
    rooms: Sequence[_Room]


_offers = WeakTensorKeyDictionary()


def offer(array: Tensor, parameters: Sequence[Tensor]) -> None:
    """Offer an array, (numbers of all parameters + SPARE,), for the parameters' gradients, one behind the other."""
    for parameter, part in zip(parameters, array[:-SPARE].split([p.numel() for p in parameters]), strict=True):
        room = _Room(array, part.view_as(parameter))
        _offers[parameter] = _Offer(room.place, (room,))


def offer_stacked(stacked: Tensor, parts: Sequence[Tensor]) -> None:
    """Offer for the gradient of a stack what is offered for its parts', if those places are as evenly spaced."""
    offers = [_offers[part] for part in parts if part in _offers]
    if len(offers) < len(parts):
        return
    places = [offered.place for offered in offers]
    step = stacked.stride(0) * stacked.element_size()
    if all(b.data_ptr() - a.data_ptr() == step for a, b in pairwise(places)):
        place = places[0].as_strided(stacked.shape, stacked.stride())
        _offers[stacked] = _Offer(place, [room for offered in offers for room in offered.rooms])


def room_for(tensor: Tensor) -> Tensor:
    """Memory for the gradient of a tensor, of its shape: the place offered if nobody has taken it, else new."""
    offered = _offers.get(tensor)
    if offered is None or not all(room.free for room in offered.rooms):
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
    for room in offered.rooms:
        room.free = False
    return offered.place.detach()  # another object, to which nobody else refers


def forget(parameters: Iterable[Tensor]) -> None:
    """Offer the places of parameters again, whose gradients nobody needs any more."""
    for parameter in parameters:
        for room in _offers[parameter].rooms:
            room.free = True


def gather(parameters: Sequence[Tensor]) -> None:
    """Copy to its place every gradient of the parameters that is not there."""
    pairs = [(_offers[p].place, p.grad) for p in parameters if not _in_place(p)]
    if pairs:
        places, gradients = zip(*pairs, strict=True)
        torch._foreach_copy_(places, gradients)


def whole_array(parameters: Sequence[Tensor]) -> Tensor | None:
    """The array that consists of the gradients of just these parameters, with its spare numbers, if there is one."""
    if not parameters or not all(p in _offers and _in_place(p) for p in parameters):
        return None
    array = _offers[parameters[0]].rooms[0].array
    same = all(_offers[p].rooms[0].array is array for p in parameters)
    return array if same and sum(p.numel() for p in parameters) == array.numel() - SPARE else None


def _in_place(parameter: Tensor) -> bool:
    """Whether a parameter's gradient lies where it is wanted."""
    place, gradient = _offers[parameter].place, parameter.grad
    return gradient is not None and gradient.data_ptr() == place.data_ptr() and gradient.stride() == place.stride()
