"""What our results say about the paper: every run of its studies, wherever under results/ it lies."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from pathlib import Path
from statistics import fmean
from typing import Any

from scipy import special

from pocketvit.config import config_hash
from pocketvit.studies.choose import find_study
from pocketvit.studies.findings import noisy_rows
from pocketvit.studies.gather import find_results
from pocketvit.studies.paper.numbers import CIFAR10_FINGERPRINT
from pocketvit.studies.power import LEVEL
from pocketvit.studies.stats import Accuracies, Comparison, compare, pooled_spread, summarise

STUDIES = ("paper-table2", "paper-table3", "paper-fig6")
BENCH = "paper-table1/bench.json"
"""Where under results/ the JSON of `pocketvit bench paper` lies."""
PROFILE = "paper-fig4/profile.json"
"""Where that of `pocketvit profile paper` lies."""

Runs = Mapping[int, Mapping[str, Any]]
"""The results of a row by seed."""


@dataclass(frozen=True)
class Evidence:
    """All that was measured."""

    runs: Mapping[tuple[str, str], Runs]
    """By study and row; a row that was not measured is there, and empty."""
    bench: Mapping[str, Any] | None = None
    """Images/s over the batch size, as `pocketvit.bench.throughput.bench` returns it."""
    profile: Mapping[str, Any] | None = None
    """The parts of a training step, as `pocketvit.bench.profile.profile` returns it."""

    @cached_property
    def references(self) -> dict[str, Mapping[str, str]]:
        """What each study compares with what."""
        return {study: find_study(study).compare for study in STUDIES}

    def figures(self, study: str, key: str) -> Accuracies:
        """A figure of every run of a study, by row and seed."""
        return {
            row: {seed: result[key] for seed, result in runs.items() if result.get(key) is not None}
            for (of, row), runs in self.runs.items()
            if of == study
        }

    def mean(self, study: str, row: str, key: str) -> float | None:
        """The mean of a figure over a row's runs; None without a run that has it."""
        values = list(self.figures(study, key).get(row, {}).values())
        return fmean(values) if values else None

    def difference(self, study: str, row: str, reference: str) -> Comparison:
        """Accuracy after the last step, a row against another.

        p is corrected over the comparisons of the study if this is one of them.
        """
        accuracies, pairs = self.figures(study, "test_accuracy"), self.references[study]
        if pairs.get(row) != reference:
            pairs = {row: reference}
        return compare(accuracies, pairs, apart=noisy_rows(accuracies))[row]

    def single_run_interval(self, study: str, row: str) -> tuple[float, float] | None:
        """Where the best look of one more run would lie with a chance of 95 %; None where nothing tells.

        A prediction interval by t, with the variance over seeds pooled as `pooled_spread` does.
        """
        best = self.figures(study, "best_test_accuracy")
        apart = noisy_rows(best)
        mates = {row: best[row]} if row in apart else {name: best[name] for name in best if name not in apart}
        spread, summary = pooled_spread(mates), summarise(best.get(row, {}))
        if summary.mean is None or not spread.total:
            return None
        t = float(special.stdtrit(spread.total_df, 1 - LEVEL / 2))
        half = t * sqrt(spread.total * (1 + 1 / summary.num_seeds))
        return summary.mean - half, summary.mean + half


def read_evidence(results: Path) -> Evidence:
    """Find the runs of the paper's studies by what they computed, and the two measurements of speed.

    Args:
        results: the folder, searched at any depth; a run that two studies share is found for both. Runs on several
            GPUs are left out: the page compares times on one.
    """
    found = find_results([results], one_gpu=True)
    runs: dict[tuple[str, str], dict[int, Mapping[str, Any]]] = {}
    for study in STUDIES:
        for cell in find_study(study).cells():
            of_row = runs.setdefault((study, cell.row), {})
            key = f"{config_hash(cell.config, CIFAR10_FINGERPRINT)}-s{cell.seed}"
            if key in found:
                of_row[cell.seed] = found[key][0]
    return Evidence(runs, _read(results / BENCH), _read(results / PROFILE))


def images_to_reach(result: Mapping[str, Any], accuracy: float) -> float | None:
    """Training images after which a run first reached an accuracy on the test set; None if it never did.

    Between two looks the accuracy is taken to grow evenly.
    """
    before = (0.0, 0.0)
    for point in result["curve"]:
        if point["split"] != "test":
            continue
        here = (float(point["images"]), float(point["accuracy"]))
        if here[1] >= accuracy:
            share = (accuracy - before[1]) / (here[1] - before[1])
            return before[0] + share * (here[0] - before[0])
        before = here
    return None


def _read(path: Path) -> Mapping[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
