"""The sections of a run's report on single classes: the confusion matrix and the scores of each class."""

from collections.abc import Sequence
from statistics import fmean

import numpy as np
from rich.cells import cell_len

from pocketvit.report.pictures import heat_map_uri
from pocketvit.report.scores import class_scores, frequent_cells, top_confusions

MAX_TABLE_CLASSES = 10  # up to this many classes, the confusion matrix is a table with numbers; beyond, a picture
MAX_LEVEL_NAME = 3  # column heads are vertical unless every class name is at most this wide, in columns of a terminal
MAX_BESIDE = 40  # up to this many classes, a picture of the matrix has room beside the list of errors
MAX_NAMED_CLASSES = 200  # up to this many classes, the picture has their names along its sides
MAX_TOLD_CELLS = 5_000  # cells of the picture that say under the mouse what they are, most images first
MAX_LISTED_CLASSES = 100
MAX_CONFUSIONS = 10


def confusions(matrix: np.ndarray, class_names: Sequence[str]) -> dict:
    """The confusion matrix as rows of cells or as a picture, and the most frequent errors."""
    small = len(matrix) <= MAX_TABLE_CLASSES
    return {
        "rows": _matrix_rows(matrix, class_names) if small else [],
        "heat_map": None if small else heat_map_uri(matrix),
        "cells": frequent_cells(matrix, MAX_TOLD_CELLS),
        "beside": len(matrix) <= MAX_BESIDE,
        "named": len(matrix) <= MAX_NAMED_CLASSES,
        "num_classes": len(matrix),
        "short_names": max(map(cell_len, class_names)) <= MAX_LEVEL_NAME,
        "top": top_confusions(matrix, MAX_CONFUSIONS),
    }


def _matrix_rows(matrix: np.ndarray, class_names: Sequence[str]) -> list[dict]:
    """The confusion matrix as text, with the color strength of each cell (0 to 1).

    Correct cells are colored by their share of the class, wrong ones by their share relative to the worst confusion.
    """
    on_diagonal = np.eye(len(matrix), dtype=bool)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)  # (K, K)
    worst = max(float(share[~on_diagonal].max(initial=0)), 1e-9)
    strength = np.where(on_diagonal, share, share / worst)
    return [
        {
            "name": name,
            "cells": [
                {"images": int(matrix[i, j]), "right": i == j, "strength": f"{strength[i, j]:.3f}"}
                for j in range(len(matrix))
            ],
        }
        for i, name in enumerate(class_names)
    ]


def classes(matrix: np.ndarray, class_names: Sequence[str]) -> dict:
    """The accuracy of every class, on an axis that begins below the lowest interval."""
    scores = class_scores(matrix)
    many = len(scores) > MAX_TABLE_CLASSES
    if many:
        scores = sorted(scores, key=lambda score: score.accuracy)
    start = int(min(score.interval[0] for score in scores) * 10) / 10
    overall = float(np.trace(matrix) / matrix.sum())

    def position(fraction: float) -> float:
        return 100 * (fraction - start) / (1 - start)

    return {
        "start": start,
        "overall": position(overall),
        "many": many,
        "left_out": max(0, len(scores) - MAX_LISTED_CLASSES),
        "macro_f1": fmean(score.f1 for score in scores),
        "rows": [
            {
                "name": class_names[score.label],
                "score": score,
                "at": position(score.accuracy),
                "from": position(score.interval[0]),
                "to": position(score.interval[1]),
            }
            for score in scores[:MAX_LISTED_CLASSES]
        ],
    }
