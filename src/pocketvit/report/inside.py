"""The sections of a run's report on the model itself: attention on test images, first layer, low-rank projections.

K classes, T test images, n images with maps, F filters of p × p pixels, P patches, L layers, R rank.
"""

from collections.abc import Mapping
from math import isqrt
from typing import Any

import numpy as np

from pocketvit.report.multilabel import classes_of
from pocketvit.report.pictures import COLOUR_BAR, filter_sheet_uri, map_uri, picture, similarity_sheet_uri
from pocketvit.report.plots import Series, line_plot
from pocketvit.report.text import listed
from pocketvit.runs.finished import Predictions

TILE = 120  # greatest side of a tile of a square sheet, in CSS pixels
PROJECTIONS = {"q": ("queries", "accent"), "k": ("keys", "warm"), "v": ("values", "ink")}


def attention(figures: Mapping[str, np.ndarray], predictions: Predictions, probabilities: np.ndarray) -> dict | None:
    """The maps on right and wrong test images, or why there are none; None for runs of before there were any.

    Args:
        probabilities: of the classes of the test images, (T, K); the maps are of the most probable one.
    """
    if "attention_refused" in figures:
        return {"refused": str(figures["attention_refused"])}
    if "attention_maps" not in figures:
        return None
    groups: dict[bool, list[dict]] = {True: [], False: []}
    weighted, rollout = figures["attention_maps"]  # (n, rows, columns) each
    shown = zip(figures["attention_rows"], figures["attention_images"], weighted, rollout, strict=True)
    for row, image, *maps in shown:
        label, predicted = predictions.labels[row], int(probabilities[row].argmax())
        several = predictions.multilabel
        right = ((predictions.logits[row] >= 0) == label).all() if several else label == predicted
        groups[bool(right)].append(
            {
                **picture(image),
                "maps": [map_uri(values) for values in maps],
                "predicted": predictions.class_names[predicted],
                "probability": float(probabilities[row, predicted]),
                "true": classes_of(predictions, row) if several else predictions.class_names[label],
            }
        )
    return {"refused": None, "right": groups[True], "wrong": groups[False], "bar": COLOUR_BAR}


def first_layer(figures: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Pictures of the patch filters and of learned positions, each with what it means."""
    sheets = []
    if "patch_filters" in figures:
        filters = figures["patch_filters"]
        remark = (
            f"The {len(filters)} strongest patterns of the trained filters (their singular vectors); gray is zero, the "
            "largest weight is full"
        )
        meaning = "A patch becomes a token by how much it has of each of these patterns. " + (
            "After whitening, fine ones have the greatest weights, since images have least of them."
            if "whitening_filters" in figures
            else "Areas, edges and colors have been learned from images; noise is left over from the random start."
        )
        sheets.append(_sheet("Patch filters", filters, filter_sheet_uri(filters), remark, meaning))
    if "whitening_filters" in figures:
        filters = figures["whitening_filters"]
        remark = (
            f"The {len(filters)} patch filters that the first layer began with, in order of decreasing eigenvalue, scaled "
            "in the same way"
        )
        meaning = (
            "They are the principal patterns of the training images' patches, weighted so that each is equally strong."
        )
        sheets.append(_sheet("Whitening filters", filters, filter_sheet_uri(filters), remark, meaning))
    if "position_similarity" in figures:
        maps = figures["position_similarity"]
        remark = f"Cosine similarity of the learned embedding of each of {len(maps)} positions to all others"
        meaning = (
            "Each small map is one patch, in its place in the image. Bright around this place: the model has learned which "
            "patches are neighbors. A bright row or column: which ones share it. Bright at a single point: only which is which."
        )
        sheets.append(_sheet("Position similarity", maps, similarity_sheet_uri(maps), remark, meaning, COLOUR_BAR))
    return sheets


def _sheet(title: str, tiles: np.ndarray, uri: str, remark: str, meaning: str, legend: str | None = None) -> dict:
    """A sheet with its width, so that few tiles are not stretched to the width of the page."""
    width = TILE * isqrt(len(tiles))
    return {"title": title, "remark": remark, "meaning": meaning, "uri": uri, "width": width, "legend": legend}


def low_rank(figures: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
    """The singular values of low-rank projections; None if there are none."""
    lines, used = [], []
    for short, (name, colour) in PROJECTIONS.items():
        if (values := figures.get(f"singular_values_{short}")) is None:
            continue
        shares = values / np.maximum(values[:, :1], 1e-12)  # (L, R)
        band = shares.min(axis=0).tolist(), shares.max(axis=0).tolist()
        places = list(range(1, shares.shape[1] + 1))
        lines.append(Series(name, places, shares.mean(axis=0).tolist(), colour, band=band))
        energy = (values**2).mean(axis=0)
        enough = 1 + int(np.searchsorted(energy.cumsum() / max(energy.sum(), 1e-12), 0.99 - 1e-9))
        used.append(f"{min(enough, len(places))} of {len(places)} of the {name}")
    if not lines:
        return None
    plot = line_plot(
        "Singular values",
        lines,
        description="Singular values of the low-rank projections, relative to the largest of each layer",
        x_label="number, largest first",
        y_range=(0.0, 1.0),
        legend_at="upper right",
    )
    return {"plot": plot, "used": listed(used)}
