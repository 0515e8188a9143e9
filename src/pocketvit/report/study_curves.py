"""Accuracy curves of a study, one line and band per row.

The line is the mean over a row's seeds, the band goes from the worst to the best of them. More than a few lines cannot
be told apart, so the rows are divided among several pairs of plots, each with the most common reference.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from markupsafe import Markup

from pocketvit.report import text
from pocketvit.report.curves import progress_axes
from pocketvit.report.plots import Series, line_plot
from pocketvit.runs.result import Evaluation

REFERENCE_COLOUR = "ink"
COLOURS = ("accent", "warm", "violet", "green", "ochre")  # of the rows in one plot, without the reference

BEHIND = 0.15
"""A row that ends this far below the best one (it diverged) does not affect where the vertical axis begins."""

Curves = Sequence[Sequence[Evaluation]]  # the evaluations of each run of a row


@dataclass(frozen=True)
class CurveGroup:
    """Two plots of the same rows, with one legend."""

    legend: list[tuple[str, str]]  # row and color; the first is dashed if it is the reference
    has_reference: bool
    below: list[str]  # rows that lie entirely below the axis
    plots: list[tuple[str, Markup]]  # title and drawing


@dataclass(frozen=True)
class MeanCurve:
    """A row's accuracy over its seeds, at each evaluation that all its runs share."""

    images: list[float]
    train_s: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


def study_curves(
    rows: Mapping[str, Curves],
    split: str,
    references: Sequence[str],
    timed: Mapping[str, Curves] | None = None,
    word: str = "Accuracy",
) -> list[CurveGroup]:
    """Draw the rows that have a curve.

    Args:
        rows: the finished runs of each row, by name.
        split: whose evaluations to draw.
        references: of the compared rows, one entry per row.
        timed: the runs whose times count, by row; by default, and for a row without any, all of its runs.
        word: what is drawn, in titles.
    Returns:
        the plots; none without evaluations.
    """
    curves = {name: curve for name, runs in rows.items() if (curve := mean_curve(runs, split, (timed or {}).get(name)))}
    if not curves:
        return []
    reference = next((name for name, _ in Counter(references).most_common() if name in curves), None)
    others = [name for name in curves if name != reference]
    groups = []
    for start in range(0, max(1, len(others)), len(COLOURS)):
        chosen = dict(zip(others[start : start + len(COLOURS)], COLOURS, strict=False))
        coloured = ({reference: REFERENCE_COLOUR} if reference else {}) | chosen
        groups.append(_draw_group(len(groups), curves, coloured, reference, word))
    return groups


def mean_curve(runs: Curves, split: str, timed: Curves | None = None) -> MeanCurve | None:
    """Mean, least and greatest accuracy of several runs at their common evaluations; None without any.

    Args:
        split: whose evaluations to use.
        timed: the runs whose times count; by default all.
    """
    by_images = [{point.images: point for point in run if point.split == split} for run in runs]
    shared = sorted(set.intersection(*map(set, by_images))) if by_images else []
    if not shared:
        return None
    at = [[run[images] for run in by_images] for images in shared]
    times = [{point.images: point.train_s for point in run if point.split == split} for run in timed or runs]
    accuracies = [[point.score for point in points] for points in at]
    return MeanCurve(
        images=shared,
        train_s=[fmean(run[images] for run in times) for images in shared],
        mean=[fmean(values) for values in accuracies],
        low=[min(values) for values in accuracies],
        high=[max(values) for values in accuracies],
    )


def _draw_group(
    number: int, curves: Mapping[str, MeanCurve], colours: Mapping[str, str], reference: str | None, word: str
) -> CurveGroup:
    """Both plots of the rows in `colours`."""
    shown = [curves[name] for name in colours]
    # In the first third all rows rise alike, which would take most of the height.
    best = max(curve.mean[-1] for curve in shown)
    start = min(min(curve.low[len(curve.low) // 3 :]) for curve in shown if curve.mean[-1] > best - BEHIND)
    below = [name for name in colours if max(curves[name].high) < start]
    plots = []
    for title, key, unit, axes in progress_axes(max(curve.train_s[-1] for curve in shown)):
        lines = [
            Series(name, [x / unit for x in getattr(curve, key)], curve.mean, colour,
                   (curve.low, curve.high), dashed=name == reference)
            for curve, (name, colour) in zip(shown, colours.items(), strict=True)
        ]  # fmt: skip
        ends = ", ".join(f"{name} {text.percent(curves[name].mean[-1], 2)}" for name in colours)
        drawing = line_plot(
            f"study curves {number} {key}", lines, description=f"{word} {title}; at the end {ends}",
            y_start=start, legend=False, **axes,
        )  # fmt: skip
        plots.append((f"{word} {title}", drawing))
    return CurveGroup(list(colours.items()), reference in colours, below, plots)
