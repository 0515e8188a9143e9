"""A study as it is run: rows, each a configuration, and its cells, each a row with a seed. `study_file.py` reads one."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pocketvit.config import RunConfig, config_hash, override

Measure = Literal["test_accuracy", "val_accuracy"]
"""The figure of a run's result that the rows of a study are compared by."""

IMAGES_OF: Mapping[Measure, str] = {"test_accuracy": "test", "val_accuracy": "validation"}
"""Which images a measure is taken on."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One configuration of a study."""

    name: str
    overrides: Mapping[str, Any]
    """What makes the row, its inherited and grid values included, the study's `base` left out."""
    seeds: tuple[int, ...]
    config: RunConfig
    """With the recipe's own seed; `Study.cells` sets each cell's."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training run: a row with a seed."""

    row: str
    seed: int
    config: RunConfig

    @property
    def name(self) -> str:
        """Unique in the study; its result is the file `<name>.json`."""
        return f"{self.row}-s{self.seed}"

    def key(self, data_fingerprint: str) -> str:
        """What it computes on which data, and its seed; the same in every study."""
        return f"{config_hash(self.config, data_fingerprint)}-s{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Study:
    """Rows, their seeds, and what is compared with what."""

    name: str
    recipe: str
    base: Mapping[str, Any]
    """Overrides of every row."""
    rows: tuple[Row, ...]
    """In the order of the file; a grid's rows stand where their template stood."""
    compare: Mapping[str, str]
    """The row that each row is compared with; a row that is absent is compared with none."""

    @property
    def measure(self) -> Measure:
        """The accuracy on validation images where all rows hold out the same share of the training images, by the same
        split seed, so that the test images choose nothing."""
        held_out = {(row.config.data.val_frac, row.config.data.split_seed) for row in self.rows}
        return "val_accuracy" if len(held_out) == 1 and all(frac for frac, _ in held_out) else "test_accuracy"

    @property
    def held_out_in_vain(self) -> list[str]:
        """Rows that hold out validation images though all are compared on the test images, as others hold out others."""
        if self.measure == "val_accuracy":
            return []
        return [row.name for row in self.rows if row.config.data.val_frac]

    def cells(self) -> list[Cell]:
        """Every run: the first seed of each row, then the second, so that a study cut short has all its rows."""
        rounds = itertools.zip_longest(*(row.seeds for row in self.rows))
        return [
            Cell(row=row.name, seed=seed, config=override(row.config, {"seed": seed}))
            for seeds in rounds
            for row, seed in zip(self.rows, seeds, strict=True)
            if seed is not None
        ]
