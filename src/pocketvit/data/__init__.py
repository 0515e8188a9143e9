"""Data sets: sources, file formats, caching, checks and splits."""

from pocketvit.data.dataset import Dataset, Split, channel_stats
from pocketvit.data.sources import load_dataset, open_dataset
from pocketvit.data.splits import Splits, open_splits, open_to_measure, refuse_among_classes

__all__ = [
    "Dataset", "Split", "Splits", "channel_stats", "load_dataset", "open_dataset", "open_splits",
    "open_to_measure", "refuse_among_classes",
]  # fmt: skip
