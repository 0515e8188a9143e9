"""The curves of a run: accuracy, loss and learning rate, each with a title and its last value in words."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

from markupsafe import Markup

from pocketvit.report import text
from pocketvit.report.plots import Series, line_plot
from pocketvit.runs.result import Evaluation, is_number

SPLITS = {"test": ("test set", "accent"), "val": ("validation set", "warm")}
"""The name of a split and the color of its line."""
TRAINING = "training images, augmented"


@dataclass(frozen=True)
class Curve:
    """A plot with its caption."""

    title: str
    remark: str
    plot: Markup
    note: str = ""
    """How to read it, below the plot."""


def accuracy_curves(points: Sequence[Evaluation], decimals: int, metrics: Sequence[Mapping] = ()) -> list[Curve]:
    """Accuracy, or mAP where an image may have several classes, against images seen and against training time.

    Args:
        points: every evaluation of the run.
        decimals: of the percentages in the caption.
        metrics: the lines of metrics.jsonl, for the training images.
    Returns:
        two curves, or none without an evaluation.
    """
    if not points:
        return []
    last, score = points[-1], "Accuracy" if points[-1].map is None else "mAP"
    remark = f"{text.percent(last.score, decimals)} on the {SPLITS[last.split][0]} at the end"
    trained = [line for line in metrics if "train_accuracy" in line]
    note = (
        "On the training images over a whole pass, augmented, while the weights change; "
        "a mixed image counts as its larger part."
        if trained
        else ""
    )
    curves = []
    for words, key, unit, axes in progress_axes(max(point.train_s for point in points)):
        title, lines = f"{score} {words}", []
        for split, (label, colour) in SPLITS.items():
            of_split = [point for point in points if point.split == split]
            if of_split:
                x = [getattr(point, key) / unit for point in of_split]
                lines.append(Series(label, x, [point.score for point in of_split], colour))
        if trained:
            x = [line[key] / unit for line in trained]
            lines.append(Series(TRAINING, x, [line["train_accuracy"] for line in trained], "muted"))
        plot = line_plot(title, lines, description=f"{title}: {remark}", **axes)
        curves.append(Curve(title, remark, plot, "" if curves else note))
    return curves


def pass_curves(metrics: Sequence[Mapping], num_classes: int, smoothing: Any = None) -> list[Curve]:
    """Loss and learning rate against passes, from metrics.jsonl.

    Args:
        smoothing: `optim.label_smoothing` of the run, if known.
    """
    passes, losses = [line["pass"] for line in metrics], []
    for split, (label, colour) in SPLITS.items():
        if lines := [line for line in metrics if f"{split}_loss" in line]:
            x, y = ([line[key] for line in lines] for key in ("pass", f"{split}_loss"))
            losses.append(Series(label, x, y, colour))
    title = f"Training and {losses[0].label.removesuffix(' set')} loss" if losses else "Training loss"
    remark = f"{metrics[-1]['loss']:.3f} in the last pass"
    remark += "".join(f", {line.y[-1]:.3f} on the {line.label}" for line in losses)
    losses.append(Series(TRAINING, passes, [line["loss"] for line in metrics], "muted" if losses else "accent"))
    rates = [Series("Learning rate", passes, [line["lr"] for line in metrics], "muted")]
    return [
        _pass_curve(title, remark, losses, smoothing_note(smoothing, num_classes)),
        _pass_curve("Learning rate", "at the end of each pass", rates),
    ]


def _pass_curve(title: str, remark: str, lines: Sequence[Series], note: str = "") -> Curve:
    description = f"{title} by pass: {remark}"
    plot = line_plot(title, lines, description=description, x_label="passes", legend_at="upper right")
    return Curve(title, remark, plot, note)


def smoothing_note(smoothing: Any, num_classes: int) -> str:
    """What label smoothing does to the loss, in one line; empty without smoothing.

    A perfect model's loss is the entropy of the smoothed targets.
    """
    if not is_number(smoothing) or not 0 < smoothing < 1 or num_classes < 2:
        return ""
    other = max(smoothing / num_classes, sys.float_info.min)  # which divides to zero if it is tiny
    own = 1 - smoothing + other
    least = -own * log(own) - (num_classes - 1) * other * log(other)
    return (
        f"With label smoothing {smoothing:g}, even a perfect model has a training loss of {least:.3f}, more with mixed "
        "images; test and validation losses are not smoothed."
    )


def progress_axes(longest_s: float) -> list[tuple[str, str, float, dict[str, Any]]]:
    """The two ways to draw scores during training, which took up to `longest_s` seconds.

    Returns:
        of each, the words for a title, the field of an `Evaluation` along the axis, by what to divide it, and the axes as
        arguments of `line_plot`.
    """
    units = (("hours", 3600.0), ("minutes", 60.0))
    name, seconds = next((unit for unit in units if longest_s >= 3 * unit[1]), ("seconds", 1.0))
    shares = {"y_format": text.axis_percent, "y_range": (0.0, 1.0)}
    return [
        ("by images seen", "images", 1.0, {"x_label": "images", "x_format": text.short_count, **shares}),
        ("by training time", "train_s", seconds, {"x_label": name, **shares}),
    ]
