"""The averaged weights' state: kept in place, saved, loaded, refused; the average is tested in tests/reference."""

import pytest
import torch
from torch import nn

from pocketvit.errors import InputError
from pocketvit.optim.ema import EMA


def parameters() -> dict[str, nn.Parameter]:
    return {"a": nn.Parameter(torch.arange(6.0).reshape(2, 3)), "b": nn.Parameter(torch.ones(4))}


def move(params: dict[str, nn.Parameter]) -> None:
    """Change the weights in place, as an optimizer does."""
    with torch.no_grad():
        for param in params.values():
            param.mul_(0.9).add_(0.1)


def test_the_first_average_is_the_weights():
    params = parameters()
    ema = EMA(params, 0.999)
    ema.update()
    for name, average in ema.averages().items():
        assert torch.equal(average, params[name])
        assert not average.requires_grad


def test_decay_zero_gives_the_weights():
    params = parameters()
    ema = EMA(params, 0.0)
    for _ in range(3):
        move(params)
        ema.update()
    assert all(torch.equal(average, params[name]) for name, average in ema.averages().items())


def test_averages_are_copies_and_the_model_is_left_alone():
    params = parameters()
    ema = EMA(params, 0.5)
    ema.update()
    ema.averages()["a"].zero_()
    assert ema.averages()["a"].any()
    assert torch.equal(params["a"], parameters()["a"])


def test_reset_forgets_in_place():
    params = parameters()
    ema = EMA(params, 0.5)
    ema.update()
    tensors = [*ema.state_dict()["averages"].values(), ema.state_dict()["window"]]
    ema.reset()
    assert not any(tensor.any() for tensor in tensors)
    with pytest.raises(RuntimeError, match="first update"):
        ema.averages()
    ema.update()
    assert torch.equal(ema.averages()["a"], params["a"])
    assert ema.state_dict()["window"] is tensors[-1]


def test_load_keeps_the_tensors_in_use():
    params = parameters()
    ema, other = EMA(params, 0.5), EMA(params, 0.5)
    ema.update()
    held = other.state_dict()
    other.load_state_dict(ema.state_dict())
    assert all(other.state_dict()["averages"][name] is tensor for name, tensor in held["averages"].items())
    assert torch.equal(held["window"], ema.state_dict()["window"])
    move(params)
    ema.update()
    assert not torch.equal(held["window"], ema.state_dict()["window"])  # copied, not shared


@pytest.mark.parametrize("averages", [{"a": torch.ones(2, 3)}, {"a": torch.ones(2, 3), "b": torch.ones(5)}])
def test_a_state_of_another_model_is_refused_and_nothing_changes(averages):
    ema = EMA(parameters(), 0.5)
    with pytest.raises(InputError, match="'b'"):
        ema.load_state_dict({"averages": averages, "window": torch.tensor(0.5)})
    assert not ema.state_dict()["averages"]["a"].any()


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(InputError, match="decay"):
        EMA(parameters(), decay)


def test_no_parameters_are_refused():
    with pytest.raises(InputError, match="no parameters"):
        EMA({}, 0.9)
