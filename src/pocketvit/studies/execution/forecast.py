"""The forecast of `pocketvit study --plan`: time and power of a study, from the speed and spread of earlier runs."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import sqrt
from pathlib import Path
from statistics import fmean, median

import numpy as np

from pocketvit.config import DataConfig
from pocketvit.data import open_dataset
from pocketvit.data.dataset import CIFAR10_FINGERPRINT, stratified_split
from pocketvit.errors import InputError
from pocketvit.report.text import count, counted, percent, points
from pocketvit.runs.result import RunResult, find_results
from pocketvit.studies.analysis.findings import accuracies, held_out_in_vain, noisy_rows
from pocketvit.studies.analysis.spread import pooled_spread
from pocketvit.studies.analysis.stats import NO_SPREAD
from pocketvit.studies.definition.choose import chosen_rows
from pocketvit.studies.definition.gather import CellResult, gather
from pocketvit.studies.definition.grid import IMAGES_OF, Study
from pocketvit.studies.definition.jobs import study_jobs
from pocketvit.studies.execution.outdated import outdated
from pocketvit.studies.execution.plan import DIFFERENCES, plan_study

LEAST_DF = 3  # degrees of freedom from which a measured spread is used instead of an assumed one


@dataclass(frozen=True)
class Speed:
    """The speed of runs on one device, and where the figure comes from."""

    images_per_s: float
    beside_s: float  # import, compilation, evaluation and report
    device: str
    on_gpu: bool
    source: str  # where the figure comes from, in words


@dataclass(frozen=True)
class Devices:
    """The devices that the study will run on."""

    number: int  # runs at a time
    name: str | None = None  # as results name it; None if unknown
    on_gpu: bool = False


@dataclass(frozen=True)
class Data:
    """The sizes of a data set."""

    num_train: int
    num_val: int  # held out of the training images
    num_test: int
    fingerprint: str
    absent: str | None = None  # why it cannot be opened


ASSUMED_SPEED = {
    "paper": Speed(239_000.0, 15.0, "NVIDIA H200", True, "assumed to be that of the recipe"),
    "minute": Speed(251_000.0, 12.0, "NVIDIA H200", True, "assumed to be that of the recipe"),
    "photos": Speed(1_000.0, 5.0, "Intel(R) Xeon(R) Processor (1 thread)", False, "assumed to be that of the recipe"),
    "finetune": Speed(239_000.0, 15.0, "NVIDIA H200", True, "assumed to be that of the paper's model"),
    "digits": Speed(8_000.0, 5.0, "Intel(R) Xeon(R) Processor (1 thread)", False, "assumed to be that of the recipe"),
}
"""By recipe, if there is no run yet. Those of GPUs are of the persistent kernels; see `baseline` in results/paper-table2,
results/persistent and results/digits."""
ASSUMED_ACCURACY = {"paper": 0.94, "minute": 0.943, "digits": 0.97, "photos": 0.9, "finetune": 0.9}


def devices_here(gpus: Sequence[str] | None, wanted: str) -> Devices:
    """The devices that a study would run on here; GPUs are assumed if it needs them and there are none.

    Args:
        gpus: as given by the user; by default all.
        wanted: the study's `train.device`.
    Raises:
        InputError: GPUs are given for a study that needs none.
    """
    from pocketvit.device import choose_device, device_name
    from pocketvit.studies.execution.local import find_slots

    try:
        slots = find_slots(gpus, wanted)
    except InputError:
        if wanted not in ("auto", "cuda"):
            raise
        return Devices(len(gpus or ["0"]), on_gpu=True)
    if not slots[0].exclusive:  # cores, with one single-threaded run each
        return Devices(len(slots), device_name(choose_device("cpu")).rpartition(" (")[0] + " (1 thread)")
    return Devices(len(slots), device_name(choose_device(wanted)), on_gpu=True)


def forecast(
    study: Study,
    out: Path,
    *,
    results: Path | None,
    devices: Devices,
    only: Sequence[str] = (),
    difference: float | None = None,
) -> list[str]:
    """The size, time and power of a study in sentences, with the sources of the figures.

    Args:
        out: the study's folder, which may already hold results.
        results: a folder with results of earlier runs.
        devices: that it will run on.
        only: rows to run, as `chosen_rows` takes them; by default all.
        difference: in points, to find the number of seeds for; by default some usual ones.
    Raises:
        InputError: the data cannot be read and are not known, no such row, or a difference that no study detects.
    """
    rows, find = chosen_rows(study, only or ["*"]), cache(_find_data)
    jobs = study_jobs(study, out, lambda data: find(data).fingerprint, results)
    gathered = gather(jobs, results)
    config = study.rows[0].config
    data = find(config.data)
    done = [cell.result for cell in gathered if cell.result is not None]
    folders = [out] if results is None else [out, results]
    alike = [
        result
        for result in find_results(folders, one_gpu=True).values()
        if (result.recipe, result.data_fingerprint) == (study.recipe, data.fingerprint)
    ]
    speed = _speed(done, alike, devices, study.recipe)
    ours = speed.device == devices.name or (speed.on_gpu and devices.on_gpu)
    std, std_from = _scatter(study, gathered, alike, data)
    plan = plan_study(
        study,
        std=std,
        seconds_per_pass=(data.num_train - data.num_val) / speed.images_per_s,
        startup_s=speed.beside_s,
        num_devices=devices.number if ours else 1,
        device=speed.device,
        left=[job.cell for job, cell in zip(jobs, gathered, strict=True) if cell.result is None and cell.row in rows],
        differences=[size for size in DIFFERENCES if size > std / 100]
        if difference is None
        else [_checked(difference, std)],
    )
    lines = [*plan.lines(), f"Speed: {count(speed.images_per_s)} images/s, {speed.source}."]
    if devices.name not in (None, speed.device):
        lines.append(f"This machine has {devices.number} × {devices.name}; the time is of 1 × {speed.device}.")
    lines += [f"Spread over seeds (standard deviation): {points(std)} points, {std_from}."]
    if done:
        lines.append(f"{len(done)} of the runs {'is' if len(done) == 1 else 'are'} already done.")
    lines += [f"{line}." for line in outdated(jobs, gathered)]
    lines += held_out_in_vain(study)
    if data.absent:
        lines.append(f"The data set is not on this machine, but its size is known ({data.absent}).")
    return lines


def _find_data(config: DataConfig) -> Data:
    """The sizes of a data set; those of CIFAR-10 are known without it."""
    try:
        dataset = open_dataset(config)
    except InputError as error:
        if config.source != "cifar10" or config.resize is not None:
            raise
        labels = np.repeat(np.arange(10), 5_000)
        return Data(50_000, _num_val(labels, config), 10_000, CIFAR10_FINGERPRINT, str(error))
    num_val = _num_val(dataset.train.labels, config)
    return Data(len(dataset.train), num_val, len(dataset.test), dataset.fingerprint)


def _num_val(labels: np.ndarray, config: DataConfig) -> int:
    """The number of training images held out, given all their labels (N,)."""
    return len(stratified_split(labels, config.val_frac, config.split_seed)[1]) if config.val_frac else 0


def _checked(difference: float, std: float) -> float:
    """A difference in points as a fraction; refused if no number of seeds would detect it."""
    if not std < difference < 100:  # std is a fraction, so this is a hundredth of it
        least = f"{points(std / 100)}, a hundredth of the spread over seeds,"
        raise InputError(f"--difference {difference:g}: must lie between {least} and 100 points")
    return difference / 100


def _speed(done: Sequence[RunResult], alike: Sequence[RunResult], devices: Devices, recipe: str) -> Speed:
    """The speed on this kind of device if it was measured, else on another one, else an assumed one."""
    on_ours = [[run for run in runs if run.device == devices.name] for runs in (done, alike)]
    runs = next((runs for runs in (*on_ours, done, alike) if runs), [])
    if not runs:
        assumed = ASSUMED_SPEED[recipe]
        here = f" on {devices.name}" if devices.name else ""
        return replace(assumed, source=f"{assumed.source} on an {assumed.device}; there is no run{here} yet")
    device = Counter(run.device for run in runs).most_common(1)[0][0]
    runs = [run for run in runs if run.device == device]
    unlike = f"; there is no run on {devices.name} yet" if devices.name not in (None, device) else ""
    return Speed(
        images_per_s=median(run.images_per_s for run in runs),
        # The least of them, because a run may also have waited for its turn on the GPU.
        beside_s=min(
            (run.beside_s for run in runs if run.beside_s is not None), default=ASSUMED_SPEED[recipe].beside_s
        ),
        device=device,
        on_gpu=runs[0].num_gpus > 0,
        source=f"the median of {counted(len(runs), 'run')} on {device}{unlike}",
    )


def _scatter(
    study: Study, gathered: Sequence[CellResult], alike: Collection[RunResult], data: Data
) -> tuple[float, str]:
    """The standard deviation of a run over seeds, and where the figure comes from.

    If it was not measured, it is that of a binomial distribution with the likely accuracy: somewhat too large, because
    runs tend to err on the same images.
    """
    found = accuracies(gathered, study.measure)
    spread = pooled_spread(found, noisy_rows(found))
    num_done = sum(map(len, found.values()))
    runs = f"{counted(num_done, 'run')} of this study"
    if spread.noise and sqrt(spread.noise) >= NO_SPREAD and spread.noise_df >= LEAST_DF:
        return sqrt(spread.noise), f"measured on {runs}"
    values = [value for row in found.values() for value in row.values()] or [run.test_accuracy for run in alike]
    num_images = data.num_test if IMAGES_OF[study.measure] == "test" else data.num_val
    accuracy, one = fmean(values) if values else ASSUMED_ACCURACY[study.recipe], 1 / max(2, num_images)
    accuracy = min(max(accuracy, one), 1 - one)
    std = sqrt(accuracy * (1 - accuracy) / num_images)
    why = f"it cannot be estimated from {runs}" if num_done else "there is no run yet"
    images = f"{count(num_images)} {IMAGES_OF[study.measure]} images"
    return std, f"assumed to be pure chance (binomial, {percent(accuracy)} of {images}); {why}"
