"""Trained models that come with the package, each in a folder like a run's: `python -m benchmarks.ship` makes it."""

import os
from pathlib import Path

from pocketvit.files import path_of

SHIPPED = Path(__file__).parents[1] / "shipped"
"""The folder of their folders, which are named like the models."""


def shipped_names() -> list[str]:
    """The names of the models that come with the package."""
    return sorted(file.parent.name for file in SHIPPED.glob("*/model.safetensors"))


def find_run(run: str | os.PathLike, folder: Path = Path()) -> Path:
    """The path of a trained model: that of a run or a file as it is, or the folder of a model that comes with the package.

    Such a model's name stands for the run or the file of this name in `folder`, if there is one; a folder of images is none.
    """
    path = folder / path_of(run)
    is_run = path.is_file() or any((path / name).exists() for name in ("model.safetensors", "config.yaml"))
    known = not is_run and str(run) in shipped_names()
    return SHIPPED / str(run) if known else path
