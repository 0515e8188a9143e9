"""PyTorch's optimizers without the guards that keep `torch.compile` out of them.

A guard loads PyTorch's compiler when it is first passed, three to six seconds at the start of every run, even where
nothing is compiled. Nothing here is ever compiled, so the methods behind the guards do as well.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer


def unguarded(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method behind a guard; itself where there is none."""
    return getattr(method, "__wrapped__", method)


class AdamW(torch.optim.AdamW):
    """PyTorch's, number for number."""

    add_param_group = unguarded(Optimizer.add_param_group)
    zero_grad = unguarded(Optimizer.zero_grad)
    step = torch.no_grad()(unguarded(torch.optim.AdamW.step))
