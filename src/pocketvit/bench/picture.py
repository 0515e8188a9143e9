"""A picture of a profile: the phases of a step as one bar, and its longest kernels."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLOURS = {"data": "#8a8f98", "forward": "#0f768a", "backward": "#d65c30", "optimizer": "#7a5ea8", "other": "#c9ccd1"}
INK, MUTED = "#1d2126", "#5b626b"
SIZE_INCHES = (7.6, 4.6)
DPI = 160
PHASE_BOX, KERNEL_BOX = (0.02, 0.72, 0.96, 0.13), (0.40, 0.10, 0.59, 0.56)
"""Left, bottom, width and height of the two drawings as fractions of the picture."""
NAME_CHARACTERS = 44  # the middle of longer kernel names is left out: the compiler's can have two hundred characters
LABELLED_FROM = 0.08  # smaller shares of the bar have no room for a number
ROOM_FOR_LABELS = 1.5  # length of the kernels' axis relative to the longest bar


def draw(profile: Mapping[str, Any], path: Path) -> None:
    """Write a profile, as `pocketvit.bench.profile` returns it, as a PNG file."""
    figure = Figure(figsize=SIZE_INCHES, facecolor="white")
    FigureCanvasAgg(figure)
    title = f"{profile['recipe']}, batch size {profile['batch_size']}: one step, {profile['busy_ms']:.2f} ms of work"
    figure.text(0.02, 0.945, title, fontsize=12, color=INK, parse_math=False)
    _phase_bar(figure.add_axes(PHASE_BOX), profile["phases_ms"])
    _kernel_bars(figure.add_axes(KERNEL_BOX), profile["kernels"])
    note = "\n".join(textwrap.wrap(f"{profile['device']}. {profile['how']}", 126))
    figure.text(0.02, 0.02, note, fontsize=7.5, color=MUTED, parse_math=False)
    figure.savefig(path, dpi=DPI)


def _phase_bar(axes: Axes, phases_ms: Mapping[str, float]) -> None:
    left, total = 0.0, sum(phases_ms.values())
    decimals = 2 if total < 10 else 1 if total < 100 else 0
    for name, ms in phases_ms.items():
        label = f"{name} {ms:.{decimals}f} ms"
        axes.barh(0, ms, left=left, color=COLOURS[name], label=label, edgecolor="white")
        if ms >= LABELLED_FROM * total:
            axes.text(left + ms / 2, 0, f"{ms / total:.0%}", ha="center", va="center", fontsize=9, color="white")
        left += ms
    axes.set_axis_off()
    axes.set_xlim(0, total)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(phases_ms), frameon=False, fontsize=9,
                labelcolor=INK, borderaxespad=0, handlelength=1, columnspacing=1.5)  # fmt: skip


def _kernel_bars(axes: Axes, kernels: Sequence[Mapping[str, Any]]) -> None:
    names = [short_name(k["name"]) for k in kernels]
    rows = range(len(kernels))
    bars = axes.barh(rows, [k["ms"] for k in kernels], color=[COLOURS[k["phase"]] for k in kernels], height=0.7)
    axes.bar_label(bars, [f"{k['ms']:.3f} ms, {k['frac']:.0%}" for k in kernels], padding=4, fontsize=8, color=INK)
    axes.set_yticks(rows, names, fontsize=7.5, family="monospace", color=INK, parse_math=False)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    axes.set_xlim(0, ROOM_FOR_LABELS * max(k["ms"] for k in kernels))


def short_name(name: str) -> str:
    """A kernel's name, without its middle if it is long."""
    if len(name) <= NAME_CHARACTERS:
        return name
    head = NAME_CHARACTERS * 2 // 3
    return f"{name[:head]}…{name[head + 1 - NAME_CHARACTERS :]}"
