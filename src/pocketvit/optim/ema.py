"""An exponential moving average of the weights, for evaluation.

The plain average, decay · average + (1 - decay) · weights from zero, is too small at first: its coefficients add up
to 1 - decayᵗ after t steps. Divided by that sum it is a true average of the weights seen so far, from the first step
on, whatever the initial weights were. Here the divided average itself is stored: with the window
n = 1 + decay + decay² + … (t terms), step t moves it by 1/n of the way to the weights: all the way at the first step,
and 1 - decay of it in the long run. Undivided, it would start from zero and, in float32, not reach the weights.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pocketvit.config.checks import Bounds
from pocketvit.errors import InputError


class EMA:
    """A bias-corrected moving average of live parameters; `update` can be captured in a CUDA graph.

    Source: the bias correction is Adam's, Kingma & Ba 2015, https://arxiv.org/abs/1412.6980, section 3.

    Args:
        parameters: the model's parameters by name, all on one device. They are read in place at every `update`.
        decay: share of the old average that a step keeps in the long run, in [0, 1); the average looks back about
            1 / (1 - decay) steps.
    Raises:
        InputError: a decay out of its range, or no parameters.
    """

    def __init__(self, parameters: Mapping[str, Tensor], decay: float) -> None:
        Bounds(0, 1, open_right=True).check("EMA decay", decay)
        if not parameters:
            raise InputError("EMA got no parameters; give at least one")
        self.decay = decay
        self._parameters = dict(parameters)
        self._averages = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
        self._window = next(iter(self._averages.values())).new_zeros(())

    @torch.no_grad()
    def update(self) -> None:
        """Add the weights of one step to the average."""
        self._window += 1 - (1 - self.decay) * self._window  # decay · window + 1, without decay's rounding to float32
        averages = list(self._averages.values())
        moves = torch._foreach_sub(list(self._parameters.values()), averages)
        torch._foreach_div_(moves, self._window)
        torch._foreach_add_(averages, moves)

    def averages(self) -> dict[str, Tensor]:
        """A copy of the averaged weights, by name.

        Raises:
            RuntimeError: before the first `update`.
        """
        if self._window.item() == 0:
            raise RuntimeError("EMA has no average before its first update")
        return {name: average.clone() for name, average in self._averages.items()}

    def state_dict(self) -> dict[str, Any]:
        """The live state tensors, to save and to overwrite: "averages", by parameter name, and the 0-dim "window"."""
        return {"averages": dict(self._averages), "window": self._window}
