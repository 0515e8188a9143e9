"""PyTorch's AdamW without the wrapper that keeps `torch.compile` (Dynamo) out of it.

The wrapper loads PyTorch's compiler when it is first called, three to six seconds at the start of every run, even where
nothing is compiled. Nothing here is ever compiled, so the methods behind the wrapper do as well.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer


def without_dynamo(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method behind such a wrapper; itself where there is none."""
    return getattr(method, "__wrapped__", method)


class AdamW(torch.optim.AdamW):
    """PyTorch's, number for number."""

    add_param_group = without_dynamo(Optimizer.add_param_group)
    zero_grad = without_dynamo(Optimizer.zero_grad)
    step = torch.no_grad()(without_dynamo(torch.optim.AdamW.step))
