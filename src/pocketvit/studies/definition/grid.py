"""A study: rows, each a configuration, and cells, each a row with a seed. `study_file.py` reads one from a file."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pocketvit.config import RunConfig, config_hash, override

Measure = Literal["test_accuracy", "val_accuracy", "test_map", "val_map"]
"""The field of a run's result by which rows are compared."""

IMAGES_OF: Mapping[Measure, str] = {
    "test_accuracy": "test", "val_accuracy": "validation", "test_map": "test", "val_map": "validation",
}  # fmt: skip
"""The images that a measure is taken on."""
WORD_OF: Mapping[Measure, str] = {
    **dict.fromkeys(("test_accuracy", "val_accuracy"), "accuracy"), **dict.fromkeys(("test_map", "val_map"), "mAP"),
}  # fmt: skip
"""What a measure is called: accuracy, or mean average precision where an image may have several classes."""
SPELLED = {"accuracy": "Accuracy", "mAP": "mAP (the mean over classes of average precision)"}
"""The same at the beginning of a sentence."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One configuration of a study."""

    name: str
    overrides: Mapping[str, Any]  # the row's overrides, with inherited and grid values, without the study's `base`
    seeds: tuple[int, ...]
    config: RunConfig  # with the recipe's seed; `Study.cells` sets each cell's


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training run: a row with a seed."""

    row: str
    seed: int
    config: RunConfig

    @property
    def name(self) -> str:
        """Unique in the study; the result is the file `<name>.json`."""
        return f"{self.row}-s{self.seed}"

    def key(self, data_fingerprint: str) -> str:
        """The hash of the configuration and the data, with the seed; the same in every study."""
        return f"{config_hash(self.config, data_fingerprint)}-s{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Study:
    """Rows, their seeds, and the row each one is compared with."""

    name: str
    recipe: str
    base: Mapping[str, Any]
    """Overrides of every row."""
    rows: tuple[Row, ...]
    """In the order of the file; a grid's rows replace their template."""
    compare: Mapping[str, str]
    """The row that each row is compared with; a row that is absent is not compared."""

    @property
    def measure(self) -> Measure:
        """Validation accuracy if all rows hold out the same share of the training images by the same split seed, so that
        rows are not chosen on test images; otherwise test accuracy. mAP where images may have several classes."""
        held_out = {(row.config.data.val_frac, row.config.data.split_seed) for row in self.rows}
        held_out = len(held_out) == 1 and all(frac for frac, _ in held_out)
        if all(row.config.objective.name == "multilabel" for row in self.rows):
            return "val_map" if held_out else "test_map"
        return "val_accuracy" if held_out else "test_accuracy"

    def cells(self) -> list[Cell]:
        """Every run: the first seed of each row, then the second, so that an interrupted study has all its rows."""
        rounds = itertools.zip_longest(*(row.seeds for row in self.rows))
        return [
            Cell(row=row.name, seed=seed, config=override(row.config, {"seed": seed}))
            for seeds in rounds
            for row, seed in zip(self.rows, seeds, strict=True)
            if seed is not None
        ]
