"""The curves of a run: accuracy, loss and learning rate, each with a title and its last value in words."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pocketvit.report import text
from pocketvit.report.plots import Series, line_plot
from pocketvit.runs.result import Evaluation

SPLITS = {"test": ("test set", "accent"), "val": ("validation set", "warm")}
"""The name of a split and the color of its line."""


@dataclass(frozen=True)
class Curve:
    """A plot with its caption."""

    title: str
    remark: str
    plot: Markup


def accuracy_curves(points: Sequence[Evaluation], decimals: int) -> list[Curve]:
    """Accuracy against images seen and against training time.

    Args:
        points: every evaluation of the run.
        decimals: of the percentages in the caption.
    Returns:
        two curves, or none without an evaluation.
    """
    if not points:
        return []
    last = points[-1]
    remark = f"{text.percent(last.accuracy, decimals)} on the {SPLITS[last.split][0]} at the end"
    unit, seconds = time_unit(max(point.train_s for point in points))
    return [
        _accuracy_curve("Accuracy by images seen", remark, points, "images", 1, "images", text.short_count),
        _accuracy_curve("Accuracy by training time", remark, points, "train_s", seconds, unit, "{:g}".format),
    ]


def pass_curves(metrics: Sequence[Mapping]) -> list[Curve]:
    """Training loss and learning rate against passes, from metrics.jsonl."""
    passes = [row["pass"] for row in metrics]
    curves = []
    for key, title, remark, colour in (
        ("loss", "Training loss", f"{metrics[-1]['loss']:.3f} in the last pass", "accent"),
        ("lr", "Learning rate", "at the end of each pass", "muted"),
    ):
        line = Series(title, passes, [row[key] for row in metrics], colour)
        plot = line_plot(
            title, [line], description=f"{title} by pass: {remark}", x_label="passes",
            x_format="{:g}".format, y_format="{:g}".format,
        )  # fmt: skip
        curves.append(Curve(title, remark, plot))
    return curves


def _accuracy_curve(
    title: str,
    remark: str,
    points: Sequence[Evaluation],
    x_key: str,
    x_unit: float,
    x_label: str,
    x_format: Callable[[float], str],
) -> Curve:
    """Accuracy at each evaluation, one line per split; `x_key` is shown in multiples of `x_unit`."""
    lines = []
    for split, (label, colour) in SPLITS.items():
        of_split = [point for point in points if point.split == split]
        if of_split:
            x = [getattr(point, x_key) / x_unit for point in of_split]
            lines.append(Series(label, x, [point.accuracy for point in of_split], colour))
    plot = line_plot(
        title, lines, description=f"{title}: {remark}", x_label=x_label,
        x_format=x_format, y_format=text.axis_percent, y_range=(0.0, 1.0),
    )  # fmt: skip
    return Curve(title, remark, plot)


def time_unit(longest_s: float) -> tuple[str, float]:
    """The unit for an axis up to `longest_s` seconds, and its length in seconds."""
    for name, seconds in (("hours", 3600.0), ("minutes", 60.0)):
        if longest_s >= 3 * seconds:
            return name, seconds
    return "seconds", 1.0
