"""The learning-rate range test: what a rising learning rate does to the loss, and what this says about `optim.lr`.

Source: Smith 2015, "Cyclical Learning Rates for Training Neural Networks", https://arxiv.org/abs/1506.01186, section 3.3
Differs: the rate rises exponentially, a factor a step, as in fastai's finder, so that a wide range fits in few steps; the loss
of the training batches is watched, not the accuracy on held-out images.

Shapes: S steps.
"""

from dataclasses import dataclass
from io import BytesIO

import numpy as np

BELOW, ABOVE = 3, 2  # powers of ten below and above `optim.lr` where the range begins and ends
SMOOTHED = 9  # steps of the moving mean
LEAST_FALL = 0.02
"""The loss must fall by this share of what it began with, or the test says nothing."""
AS_LOW = 0.02
"""A loss this share of the whole fall above the least one is as low: at too high rates, it may happen to fall so far again."""


def range_factors(steps: int) -> np.ndarray:
    """Learning rates over the peak, rising exponentially, (S,)."""
    return np.logspace(-BELOW, ABOVE, steps)


@dataclass(frozen=True)
class RangeTest:
    """The losses at rising learning rates."""

    rates: np.ndarray
    """(S,)."""
    losses: np.ndarray
    """Before the step at each rate, (S,); the last may be not finite."""

    @property
    def smoothed(self) -> np.ndarray:
        """The mean loss of up to `SMOOTHED` steps around each, (S,)."""
        half = SMOOTHED // 2
        known = np.isfinite(self.losses)
        finite = np.where(known, self.losses, self.losses.max(initial=0, where=known))
        return np.array([finite[max(0, i - half) : i + half + 1].mean() for i in range(len(finite))])

    @property
    def first(self) -> float:
        """The loss at the smallest rates, which change next to nothing."""
        return float(self.losses[:SMOOTHED].mean())

    @property
    def lowest(self) -> float | None:
        """The smallest rate with about the least smoothed loss; None if the loss never fell."""
        if not np.isfinite(self.first):
            return None
        smoothed = self.smoothed
        fall = self.first - smoothed.min()
        noise = float(np.diff(self.losses[: 2 * SMOOTHED]).std()) / np.sqrt(SMOOTHED)  # of a smoothed loss, and more
        if fall <= max(LEAST_FALL * self.first, 3 * noise):
            return None
        return float(self.rates[int((smoothed <= smoothed.min() + AS_LOW * fall).argmax())])

    @property
    def limit(self) -> float | None:
        """The rate, above `lowest`, from which on the loss was no better than the first one; None if there is none."""
        lost = ~np.isfinite(self.losses) | (self.smoothed > self.first)
        lost &= self.rates > (self.lowest or 0)
        return float(self.rates[int(lost.argmax())]) if lost.any() else None


def draw(test: RangeTest, lr: float) -> bytes:
    """The test as a PNG: losses by learning rate, with the configured one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(test.rates, test.losses, color="#9aa3aa", linewidth=0.8, label="loss of each step")
    axes.plot(test.rates, test.smoothed, color="#0f6f83", linewidth=2, label=f"mean of {SMOOTHED}")
    axes.axvline(lr, color="#bd4f27", linewidth=1.5, linestyle="--", label=f"optim.lr = {lr:g}")
    axes.axhline(test.first, color="#dfe2de", linewidth=1, zorder=0)
    for rate, name in ((test.lowest, "least"), (test.limit, "lost")):
        if rate is not None:
            axes.annotate(f"{name} {rate:.1g}", (rate, np.interp(rate, test.rates, test.smoothed)), (0, -16),
                          textcoords="offset points", ha="center", fontsize=9, color="#1b2024")  # fmt: skip
            axes.plot(rate, np.interp(rate, test.rates, test.smoothed), "o", color="#0f6f83")
    finite = test.losses[np.isfinite(test.losses)]
    top, bottom = 1.3 * test.first, finite.min()
    axes.set_ylim(bottom - 0.15 * (top - bottom), top)
    axes.set_xscale("log")
    axes.set_xlabel("learning rate, rising from step to step")
    axes.set_ylabel("training loss")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="lower left")
    file = BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()
