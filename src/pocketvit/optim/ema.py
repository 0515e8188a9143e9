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

    Sources: the bias correction is Adam's, Kingma & Ba 2015, https://arxiv.org/abs/1412.6980, section 3; a late start,
    without a correction, and a share of the current weights are modded-nanogpt's Tail-EMA,
    https://github.com/KellerJordan/modded-nanogpt/pull/325

    Args:
        parameters: the model's parameters by name, all on one device. They are read in place at every `update`.
        decay: share of the old average that a step keeps in the long run, in [0, 1); the average looks back about
            1 / (1 - decay) steps.
        start: the step, from 0, whose weights begin the average; until then, it is the current weights. With 0, the
            average is corrected from the first step on.
        share: of the average in `averages`, in (0, 1]; the rest is the current weights.
    Raises:
        InputError: a decay or share out of its range, or no parameters.
    """

    def __init__(self, parameters: Mapping[str, Tensor], decay: float, *, start: int = 0, share: float = 1.0) -> None:
        Bounds(0, 1, open_right=True).check("EMA decay", decay)
        Bounds(0, 1, open_left=True).check("EMA share", share)
        if not parameters:
            raise InputError("EMA got no parameters; give at least one")
        self.decay, self.start, self.share = decay, start, share
        self._parameters = dict(parameters)
        self._averages = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
        self._window = next(iter(self._averages.values())).new_zeros(())

    @torch.no_grad()
    def update(self, step: Tensor | None = None) -> None:
        """Add the weights of one step to the average.

        Args:
            step: which step it is, from 0, (1,); only needed with a `start`.
        """
        if step is not None and self.start:
            # Until the start the average is made anew in every step; then it has the window of the long run at once.
            self._window.copy_((step > self.start).squeeze() / (1 - self.decay))
        self._window += 1 - (1 - self.decay) * self._window  # decay · window + 1, without decay's rounding to float32
        averages = list(self._averages.values())
        moves = torch._foreach_sub(list(self._parameters.values()), averages)
        torch._foreach_div_(moves, self._window)
        torch._foreach_add_(averages, moves)

    def averages(self) -> dict[str, Tensor]:
        """A copy of the averaged weights, by name, with the current ones' share.

        Raises:
            RuntimeError: before the first `update`.
        """
        if self._window.item() == 0:
            raise RuntimeError("EMA has no average before its first update")
        return {
            name: torch.lerp(self._parameters[name].detach(), average, self.share)
            for name, average in self._averages.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """The live state tensors, to save and to overwrite: "averages", by parameter name, and the 0-dim "window"."""
        return {"averages": dict(self._averages), "window": self._window}
