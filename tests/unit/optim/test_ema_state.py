"""The averaged weights' state, and what is refused; the average is tested in tests/reference."""

import pytest
import torch
from torch import nn

from pocketvit.errors import InputError
from pocketvit.optim.ema import EMA


def parameters() -> dict[str, nn.Parameter]:
    return {"a": nn.Parameter(torch.arange(6.0).reshape(2, 3)), "b": nn.Parameter(torch.ones(4))}


def test_averages_are_copies_and_the_model_is_left_alone():
    params = parameters()
    ema = EMA(params, 0.5)
    ema.update()
    ema.averages()["a"].zero_()
    assert ema.averages()["a"].any()
    assert torch.equal(params["a"], parameters()["a"])


def test_the_state_is_the_tensors_in_use():
    params = parameters()
    ema = EMA(params, 0.5)
    with pytest.raises(RuntimeError, match="first update"):
        ema.averages()
    held = ema.state_dict()
    ema.update()
    assert torch.equal(held["averages"]["a"], params["a"])
    assert float(held["window"]) == 1
    assert not ema.averages()["a"].requires_grad


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(InputError, match="decay"):
        EMA(parameters(), decay)


def test_no_parameters_are_refused():
    with pytest.raises(InputError, match="no parameters"):
        EMA({}, 0.9)
