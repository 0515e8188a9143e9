"""What a study will take and can show, from what earlier runs took and how they scattered."""

from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from statistics import median
from typing import Any

from pocketvit.data import open_dataset
from pocketvit.report.text import count, counted
from pocketvit.studies.findings import accuracies
from pocketvit.studies.gather import find_results, gather
from pocketvit.studies.grid import Study
from pocketvit.studies.jobs import data_fingerprints, study_jobs
from pocketvit.studies.plan import plan_study
from pocketvit.studies.stats import pooled_spread
from pocketvit.studies.verdict import points

ASSUMED_STD = 0.0015
"""Standard deviation of a run over seeds where none was measured: usual at about 94 % of 10,000 test images."""
LEAST_DF = 3
"""Degrees of freedom from which a measured spread is trusted more than the usual one."""
ASSUMED_IMAGES_PER_S = 75_000.0
"""Where none was measured: the paper's baseline on an H100."""
ASSUMED_BESIDE_S = 30.0
"""Import, compilation, evaluation and report, where none was measured."""


def forecast(study: Study, out: Path, *, results: Path | None, num_devices: int) -> list[str]:
    """A study's size, time and power in sentences, with where the figures are from.

    Args:
        study: the study.
        out: its folder, which may hold results already.
        results: a folder with results of earlier runs.
        num_devices: that work side by side.
    Raises:
        InputError: the data cannot be read.
    """
    fingerprints = data_fingerprints()
    gathered = gather(study_jobs(study, out, fingerprints), results)
    config = study.rows[0].config
    dataset = open_dataset(config.data)
    done = [cell.result for cell in gathered if cell.result is not None]
    folders = [out] if results is None else [out, results]
    known = [result for result, _ in find_results(folders, one_gpu=True).values()]
    others = [result for result in known if _alike(result, study.recipe, dataset.fingerprint)]
    images_per_s, beside_s, speed_from = _speed(done or others)
    spread = pooled_spread(accuracies(gathered))
    measured = spread.noise is not None and spread.noise > 0 and spread.noise_df >= LEAST_DF
    std = sqrt(spread.noise) if measured else ASSUMED_STD
    plan = plan_study(
        study,
        std=std,
        seconds_per_pass=len(dataset.train) * (1 - config.data.val_frac) / images_per_s,
        startup_s=beside_s,
        num_devices=num_devices,
    )
    runs = f"{counted(len(done), 'run')} of this study"
    why = f"it cannot be told from {runs}" if done else "no run was measured yet"
    std_from = f"measured on {runs}" if measured else f"assumed; {why}"
    said = [*plan.lines(), f"Speed: {speed_from}.", f"Scatter over seeds: {points(std)} points, {std_from}."]
    return said + ([f"{len(done)} of the runs {'is' if len(done) == 1 else 'are'} done already."] if done else [])


def _alike(result: dict[str, Any], recipe: str, fingerprint: str) -> bool:
    """Whether a run is of the same recipe on the same data."""
    return (result.get("recipe"), result.get("data_fingerprint")) == (recipe, fingerprint)


def _speed(runs: Sequence[dict[str, Any]]) -> tuple[float, float, str]:
    """Images a second, seconds beside the training, and where they are from."""
    if not runs:
        text = f"{count(ASSUMED_IMAGES_PER_S)} images/s assumed, as on an NVIDIA H100; no run was measured yet"
        return ASSUMED_IMAGES_PER_S, ASSUMED_BESIDE_S, text
    images_per_s = median(run["images_per_s"] for run in runs)
    devices = ", ".join(sorted({run["device"] for run in runs}))
    runs_text = counted(len(runs), "run")
    # The least of them, because a run may also have waited for its turn on the GPU.
    beside_s = max(0.0, min(run["total_s"] - run["train_s"] for run in runs))
    return images_per_s, beside_s, f"{count(images_per_s)} images/s, the median of {runs_text} on {devices}"
