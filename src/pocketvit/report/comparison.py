"""Finished runs compared with the first of them: a self-contained page.

T test images, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pocketvit.config.data import MEMORY
from pocketvit.errors import InputError
from pocketvit.files import path_of, write_atomically
from pocketvit.report import text
from pocketvit.report.curves import SPLITS, Curve, progress_axes
from pocketvit.report.page import flat, setting
from pocketvit.report.plots import Series, line_plot
from pocketvit.report.scores import wilson_interval
from pocketvit.report.templating import page_environment
from pocketvit.runs.finished import FinishedRun, read_run
from pocketvit.runs.hardware import device
from pocketvit.tables import ABSENT

COLOURS = ("ink", "accent", "warm", "violet", "green", "ochre")
STYLES = [(colour, dashed) for dashed in (False, True) for colour in COLOURS]
"""The color of each run's lines, and whether they are dashed."""
MOST_RUNS = len(STYLES)
MOST_CLASSES = 100  # in the table; those with the greatest differences


@dataclass(frozen=True)
class McNemar:
    """Whether two models differ on the same images: the exact test of the images that only one of them has right.

    Source: McNemar 1947, https://doi.org/10.1007/BF02295996, by the binomial distribution instead of chi-squared
    """

    only_first: int
    only_second: int

    @cached_property
    def p(self) -> float:
        """The probability of so uneven a division, or a more uneven one, if both models were equally good."""
        from scipy.stats import binomtest

        together = self.only_first + self.only_second
        return float(binomtest(self.only_first, together).pvalue) if together else 1.0


@dataclass(frozen=True)
class Compared:
    """A run, compared with the first one."""

    name: str
    run: FinishedRun
    right: np.ndarray  # whether the test images are classified correctly, bool, (T,)
    test: McNemar | None  # None for the first run, and if the test images are not the same


def compare(folders: Sequence[Path]) -> list[Compared]:
    """Read finished runs and compare the others with the first.

    Raises:
        InputError: a folder is no finished run, two are the same, or they are too many for a page.
    """
    paths = [path_of(folder) for folder in folders]
    if len({path.resolve() for path in paths}) < len(paths):
        raise InputError("a run is given twice")
    if len(paths) > MOST_RUNS:
        raise InputError(f"{len(paths)} runs are too many for a page; give at most {MOST_RUNS}")
    runs = [read_run(path) for path in paths]
    if any(run.predictions.multilabel for run in runs):
        raise InputError("an image of these runs may have several classes, and only runs with one can be compared")
    rights = [run.predictions.logits.argmax(axis=1) == run.predictions.labels for run in runs]
    short = [path.resolve().name for path in paths]
    names = short if len(set(short)) == len(short) else list(map(str, paths))

    def test(i: int) -> McNemar | None:
        if i == 0 or not same_images(runs[0], runs[i]):
            return None
        return McNemar(int((rights[0] & ~rights[i]).sum()), int((~rights[0] & rights[i]).sum()))

    return [Compared(names[i], runs[i], rights[i], test(i)) for i in range(len(runs))]


def same_images(one: FinishedRun, other: FinishedRun) -> bool:
    """Whether two runs have the same test images in the same order, perhaps resized: from the same data, of the same names.

    Another fingerprint with the same training images is another test set, and images in memory have no names to go by.
    """
    a, b = one.predictions, other.predictions
    of_same_data = one.result.data_fingerprint == other.result.data_fingerprint
    same_training = one.result.train_fingerprint == other.result.train_fingerprint is not None
    if not of_same_data and not same_training:
        of_same_data = setting(one, "data", "source") == setting(other, "data", "source") != MEMORY
    return of_same_data and a.class_names == b.class_names and np.array_equal(a.labels, b.labels) and a.files == b.files


def summary(found: Sequence[Compared]) -> list[str]:
    """The comparison in a few lines."""
    first = found[0]
    lines = [f"{one.name}: {one.right.mean():.2%} of {len(one.right):,} test images" for one in found]
    for one in found[1:]:
        if one.test is None:
            lines.append(
                f"{one.name} and {first.name} may have different test images, so McNemar's test cannot be made"
            )
        else:
            told = f"only {one.name} has {one.test.only_second} right, only {first.name} {one.test.only_first}"
            lines.append(f"{one.name} against {first.name}: {told}; McNemar's exact p = {one.test.p:.3g}")
    return lines


def write_comparison(page: Path, found: Sequence[Compared]) -> Path:
    """Write the page; returns its path.

    Raises:
        InputError: it cannot be written.
    """
    write_atomically(page, render(found).encode(errors="backslashreplace"))
    return page


def render(found: Sequence[Compared]) -> str:
    """The page as HTML."""
    classes = _classes(found)
    return page_environment().get_template("compare.html.j2").render(
        names=[one.name for one in found],
        results=[_result(one, found[0]) for one in found],
        same=all(one.test for one in found[1:]),
        settings=_settings(found),
        legend=[(one.name, *style) for one, style in zip(found, STYLES, strict=False)],
        curves=_curves(found),
        classes=classes[:MOST_CLASSES],
        left_out=max(0, len(classes) - MOST_CLASSES),
    )  # fmt: skip


def _result(one: Compared, first: Compared) -> dict:
    """A run's figures as texts."""
    result, total = one.run.result, len(one.right)
    decimals = text.percent_decimals(total)
    interval = wilson_interval(int(one.right.sum()), total)
    return {
        "name": one.name,
        "accuracy": text.percent(one.right.mean(), decimals),
        "interval": " to ".join(text.percent(end, decimals) for end in interval),
        "difference": "" if one is first else text.points(one.right.mean() - first.right.mean(), signed=True),
        "test": one.test,
        "p": one.test and (f"{one.test.p:.3f}" if one.test.p >= 0.001 else "< 0.001"),
        "facts": [
            ("Seed", str(result.seed)),
            ("Parameters", text.count(result.num_params)),
            ("Training time", text.duration(result.train_s)),
            ("Speed", f"{text.count(result.images_per_s)} images/s"),
            ("Device", device(result)),
        ],
    }


def _settings(found: Sequence[Compared]) -> list[tuple[str, list[str]]]:
    """Every field of the configurations that is not the same in all runs, with its values."""
    configs = [dict(flat(one.run.config)) for one in found]
    names = dict.fromkeys(name for config in configs for name in config)
    rows = [(name, [config.get(name, ABSENT) for config in configs]) for name in names if name != "out"]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def _classes(found: Sequence[Compared]) -> list[dict]:
    """Accuracy by class, the greatest differences first; none if the runs have different classes."""
    names = found[0].run.predictions.class_names
    if any(one.run.predictions.class_names != names for one in found):
        return []
    rows = []
    for k, name in enumerate(names):
        of_class = [one.right[one.run.predictions.labels == k] for one in found]
        if all(map(len, of_class)):
            accuracies = [float(right.mean()) for right in of_class]
            differences = ["", *(text.points(value - accuracies[0], signed=True) for value in accuracies[1:])]
            spread = max(accuracies) - min(accuracies)
            rows.append({"name": name, "images": len(of_class[0]), "spread": spread,
                         "cells": [*zip(map(text.percent, accuracies), differences, strict=True)]})  # fmt: skip
    return sorted(rows, key=lambda row: -row["spread"])


def _curves(found: Sequence[Compared]) -> list[Curve]:
    """Accuracy by images and by time, and losses by passes."""
    results = [one.run.result for one in found]
    split = "test" if all(any(p.split == "test" for p in result.curve) for result in results) else "val"
    points = [[point for point in result.curve if point.split == split] for result in results]

    def losses(key: str) -> list[tuple[list, list]]:
        lines = [[line for line in one.run.metrics if key in line] for one in found]
        return [([line["pass"] for line in run], [line[key] for line in run]) for run in lines]

    where = f"on the {SPLITS[split][0]}"
    curves = []
    for title, key, unit, axes in progress_axes(max(one.run.metrics[-1]["train_s"] for one in found)):
        lines = [([getattr(p, key) / unit for p in run], [p.accuracy for p in run]) for run in points]
        curves += _curve(found, f"Accuracy {title}", where, lines, **axes)
    mixed = "with the smoothing and mixing of each run"
    curves += _curve(found, "Training loss", mixed, losses("loss"), x_label="passes")
    return curves + _curve(found, "Loss", where, losses(f"{split}_loss"), x_label="passes")


def _curve(
    found: Sequence[Compared], title: str, remark: str, lines: Sequence[tuple[list, list]], **axes
) -> list[Curve]:
    """A plot with a line for each run that has points; none without any."""
    series = [
        Series(one.name, x, y, colour, dashed=dashed)
        for one, (x, y), (colour, dashed) in zip(found, lines, STYLES, strict=False)
        if x
    ]
    if not series:
        return []
    described = ", ".join(f"{one.label} {one.y[-1]:.4g}" for one in series)
    plot = line_plot(title, series, description=f"{title}; at the end {described}", legend=False, **axes)
    return [Curve(title, remark, plot)]
