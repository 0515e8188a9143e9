"""Our results on the paper: every run of its studies, found anywhere under results/."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from math import exp, log, sqrt
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from scipy import special

from pocketvit.data.dataset import CIFAR10_FINGERPRINT
from pocketvit.files import read_json
from pocketvit.runs.hardware import Hardware, hardware
from pocketvit.runs.result import RunResult, find_results
from pocketvit.studies.analysis.findings import noisy_rows
from pocketvit.studies.analysis.power import LEVEL
from pocketvit.studies.analysis.spread import Accuracies, pooled_spread
from pocketvit.studies.analysis.stats import Comparison, compare, correct, rounding_variance, summarise
from pocketvit.studies.definition.choose import find_study
from pocketvit.studies.definition.gather import with_earlier
from pocketvit.studies.definition.jobs import study_jobs

STUDIES = ("paper-table2", "paper-table3", "paper-fig6")
ADDED = {
    "paper-table2": dict.fromkeys(("mla-k", "mla-qk", "mla-kv", "mla-qkv"), "mla-q"),
    "paper-table3": {"width96-2cls": "width192"},
    "paper-fig6": dict.fromkeys(("lion", "lion-lr1e-3", "lion-lr1e-4"), "adamw-lr1e-3"),
}
"""Comparisons that the claims need in addition to those of the studies: by study, each row's other reference."""
BENCH = "paper-table1/bench.json"
"""Under results/, the output of `pocketvit bench paper`."""
PROFILE = "paper-fig4/profile.json"
"""Under results/, the output of `pocketvit profile paper`."""
ACTIVATIONS = "activations/paper.json"
"""Under results/, the output of `benchmarks/activations.py`."""
SCALING = "scaling/speed"
"""Under results/, the folder of the outputs of `benchmarks/scaling.py`."""
study_of = cache(find_study)
"""A built-in study by its name, read once."""

TIMED = frozenset({"train_s", "total_s", "images_per_s", "peak_memory_gib"})
"""Figures of a run that depend on its hardware."""

Runs = Mapping[int, RunResult]
"""The results of a row by seed."""


class Ratio(NamedTuple):
    """The ratio of two rows' figures, with its 95 % interval."""

    middle: float
    low: float
    high: float


@dataclass(frozen=True)
class Evidence:
    """All measurements."""

    runs: Mapping[tuple[str, str], Runs]
    """By study and row; a row without runs is present and empty."""
    bench: Mapping[str, Any] | None = None
    """Images/s by batch size, as `pocketvit.bench.throughput.bench` returns it."""
    profile: Mapping[str, Any] | None = None
    """The parts of a training step, as `pocketvit.bench.profile.profile` returns it."""
    activations: Mapping[str, Any] | None = None
    """The memory that rows keep for the backward pass, as `benchmarks/activations.py` writes it."""
    scaling: Mapping[tuple[int, int], RunResult] = field(default_factory=dict)
    """Short runs by number of GPUs and batch size, as `benchmarks/scaling.py` writes them."""
    earlier: frozenset[tuple[str, str]] = frozenset()
    """Rows, by study, whose runs are from before a revision of what they compute."""

    @cached_property
    def comparisons(self) -> dict[tuple[str, str, str], Comparison]:
        """All comparisons of accuracy after the last step, by study, row and reference.

        p is corrected over all comparisons of a study, including those of the claims and those not measured yet.
        """
        found = {}
        for study in STUDIES:
            accuracies = self.figures(study, "test_accuracy")
            apart, least = noisy_rows(accuracies), rounding_variance(accuracies)
            of_study = [
                replace(comparison, detectable=None)
                for pairs in (study_of(study).compare, ADDED.get(study, {}))
                for comparison in compare(accuracies, pairs, apart, least).values()
            ]
            found |= {(study, c.row, c.reference): c for c in correct(of_study)}
        return found

    def hardware(self, study: str) -> Hardware:
        """The hardware of a study's runs."""
        return hardware(result for (of, _), runs in self.runs.items() if of == study for result in runs.values())

    def figures(self, study: str, key: str) -> Accuracies:
        """A figure of a study's runs, by row and seed; times and memory only of runs on its usual hardware."""
        counts = self.hardware(study).counts if key in TIMED else lambda _: True
        return {
            row: {
                seed: figure
                for seed, result in runs.items()
                if (figure := getattr(result, key)) is not None and counts(result)
            }
            for (of, row), runs in self.runs.items()
            if of == study
        }

    def mean(self, study: str, row: str, key: str) -> float | None:
        """The mean of a figure over a row's runs; None if no run has it."""
        values = list(self.figures(study, key).get(row, {}).values())
        return fmean(values) if values else None

    def difference(self, study: str, row: str, reference: str) -> Comparison:
        """One of `comparisons`, in either direction; KeyError if there is none."""
        if (study, row, reference) in self.comparisons:
            return self.comparisons[study, row, reference]
        found = self.comparisons[study, reference, row]
        if found.difference is None:
            return replace(found, row=row, reference=reference)
        interval = found.interval and (-found.interval[1], -found.interval[0])
        return replace(found, row=row, reference=reference, difference=-found.difference, interval=interval)

    def ratio(self, study: str, row: str, reference: str, key: str) -> Ratio | None:
        """The ratio of a row's figure to its reference's; None if its spread is unknown.

        Logarithms are compared like accuracies. A figure that is the same in every run has an interval of zero width.
        Times are compared between runs of the same commits only, because our code has become faster.
        """
        logs = {name: {s: log(value) for s, value in of.items()} for name, of in self.figures(study, key).items()}
        if key in TIMED:
            commits = {name: {s: self.runs[study, name][s].commit for s in of} for name, of in logs.items()}
            shared = set(commits[row].values()) & set(commits[reference].values())
            logs = {name: {s: v for s, v in of.items() if commits[name][s] in shared} for name, of in logs.items()}
        found = compare(logs, {row: reference}, apart=noisy_rows(logs))[row]
        if found.difference is None or (found.interval is None and found.num_seeds == 1):
            return None
        return Ratio(exp(found.difference), *map(exp, found.interval or 2 * (found.difference,)))

    def best_evaluation_interval(self, study: str, row: str, *, of_mean: bool = False) -> tuple[float, float] | None:
        """The 95 % prediction interval of the best evaluation of one more run; None if the spread is unknown.

        It comes from t, with the variance over seeds pooled by `pooled_spread`; with `of_mean`, it is the confidence
        interval of the mean over seeds.
        """
        best = self.figures(study, "best_test_accuracy")
        apart = noisy_rows(best)
        spread = pooled_spread({row: best[row]}) if row in apart else pooled_spread(best, apart)
        summary = summarise(best.get(row, {}))
        if summary.mean is None or not spread.total:
            return None
        t = float(special.stdtrit(spread.total_df, 1 - LEVEL / 2))
        half = t * sqrt(spread.total * (1 / summary.num_seeds + (0 if of_mean else 1)))
        return summary.mean - half, summary.mean + half


def read_evidence(results: Path) -> Evidence:
    """Find the runs of the paper's studies by their keys, and the measurements of speed and memory.

    Args:
        results: the folder, searched at any depth; a run that two studies share is found for both. Runs on several
            GPUs are left out, because the page compares times on one.
    """
    found = find_results([results], one_gpu=True)
    runs: dict[tuple[str, str], dict[int, RunResult]] = {}
    earlier = set()
    for study in STUDIES:
        jobs = study_jobs(study_of(study), results, lambda data: CIFAR10_FINGERPRINT)
        known = with_earlier(jobs, found)
        for job in jobs:
            of_row = runs.setdefault((study, job.cell.row), {})
            if job.key in known:
                of_row[job.cell.seed] = known[job.key]
                if known[job.key].key in job.earlier_keys:
                    earlier.add((study, job.cell.row))
    speeds = [RunResult.read(path) for path in sorted((results / SCALING).glob("*.json"))]
    return Evidence(
        runs,
        bench=_read(results / BENCH),
        profile=_read(results / PROFILE),
        activations=_read(results / ACTIVATIONS),
        scaling={(speed.num_gpus, speed.extra["batch_size"]): speed for speed in speeds},
        earlier=frozenset(earlier),
    )


def images_to_reach(result: RunResult, accuracy: float) -> float | None:
    """Training images after which a run first reached an accuracy on the test set; None if it never did.

    The accuracy is interpolated linearly between evaluations.
    """
    before = (0.0, 0.0)
    for point in result.curve:
        if point.split != "test":
            continue
        here = (float(point.images), float(point.accuracy))
        if here[1] >= accuracy:
            share = (accuracy - before[1]) / (here[1] - before[1])
            return before[0] + share * (here[0] - before[0])
        before = here
    return None


def _read(path: Path) -> Mapping[str, Any] | None:
    return read_json(path) if path.is_file() else None
