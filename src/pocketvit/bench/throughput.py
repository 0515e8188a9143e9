"""The paper's Table 1 on this machine: images/s and memory by batch size, for the eager, compiled and fused variants.

Every batch size is measured in the three modes of `pocketvit.bench.modes`, all variants in one run.

Source: Wu 2025, "Powerful Design of Small Vision Transformer on CIFAR10", Table 1
Differs: the paper gives one throughput and one memory per batch size, without saying what they include.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from pocketvit.bench.clock import Timing
from pocketvit.bench.modes import plain_model, time_forward, time_training
from pocketvit.bench.roofline import Rates, Work, flop_per_image, forward_work, measure_rates, training_work
from pocketvit.bench.start import start_times
from pocketvit.bench.synthetic import shape_of
from pocketvit.config import RunConfig, flatten, override
from pocketvit.config.checks import Bounds, plain, unknown
from pocketvit.device import (
    choose_device,
    compute_dtype,
    device_name,
    fitting_threads,
    peak_memory_gib,
    uses_bf16,
    watch_memory,
)
from pocketvit.errors import InputError
from pocketvit.recipes import RECIPES, recipe
from pocketvit.runs.provenance import environment
from pocketvit.training.graphs import take_workspaces

VARIANTS: dict[str, dict[str, Any]] = {
    "eager": {"train.compile": False, "train.cuda_graph": False, "train.kernels": "reference"},
    "compiled": {"train.compile": True, "train.cuda_graph": True, "train.kernels": "reference"},
    "fused": {"train.cuda_graph": True, "train.kernels": "fused"},
    "persistent": {"train.cuda_graph": True, "train.kernels": "persistent"},
}
"""The variants, with the fields that each sets."""

BATCH_SIZES = {"cuda": (32, 64, 128, 256, 512, 1024), "mps": (32, 64, 128, 256), "cpu": (16, 64)}
"""The paper's, or fewer and smaller ones on slower devices."""
DEFAULT_VARIANTS = {"cuda": ("eager", "compiled", "fused", "persistent"), "mps": ("eager",), "cpu": ("eager",)}
DEFAULT_REPEATS = {"cuda": 5, "mps": 5, "cpu": 3}

SET_BY_BENCH = {"batch_size", "seed", "out", "train.device", *(name for fields in VARIANTS.values() for name in fields)}
"""Fields that are not shown as changes to the recipe."""

Mode = Literal["forward", "step", "recipe"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement."""

    variant: str  # a key of `VARIANTS`
    mode: Mode
    batch_size: int
    images_per_s: float | None = None  # median over the repeats; none if the measurement failed
    images_per_s_min: float | None = None  # the slowest repeat
    images_per_s_max: float | None = None  # the fastest repeat
    batch_ms: float | None = None  # median time of one batch
    peak_memory_gib: float | None = None
    """Peak memory allocated by tensors, including model, optimizer and images; only on a GPU."""
    threads: int | None = None  # of the CPU; none on a GPU
    flop_floor_ms: float | None = None  # least time of a batch's arithmetic at the measured rate; none for recipe
    byte_floor_ms: float | None = None  # least time of a batch's memory traffic at the measured rate; none for recipe
    error: str | None = None  # why there is no measurement
    not_fused: str | None = None  # why the fused kernels did not compute the blocks


def bench(
    config: RunConfig,
    *,
    batch_sizes: Sequence[int] | None = None,
    variants: Sequence[str] | None = None,
    repeats: int | None = None,
    forward: bool = True,
    starts: bool = True,
    update: Callable[[dict[str, Any]], None] = lambda result: None,
) -> dict[str, Any]:
    """Measure the speed and memory of a configuration.

    Args:
        config: what to run; its batch size and the fields that the variants set are replaced.
        batch_sizes: by default, like `variants` and `repeats`, those for the device.
        variants: keys of `VARIANTS`.
        repeats: timed repeats of each measurement.
        forward: measure classification as well as training.
        starts: also measure the seconds until the first step, at the configuration's own batch size.
        update: is called with the result so far after each variant and batch size.
    Returns:
        the machine and software, the fields `changed` from the recipe, `num_params`, the measured `rates`, `rows` (fields
        of `Row`), the `start`, and the machine's `load_averages` over one minute after each variant and batch size.
    Raises:
        InputError: an unknown variant, a number below 1, or data that cannot be opened.
    """
    device = choose_device(config.train.device)
    batch_sizes = tuple(plain(batch_sizes) or BATCH_SIZES[device.type])
    variants = tuple(variants or supported_variants(config, device))
    num_repeats: int = DEFAULT_REPEATS[device.type] if repeats is None else plain(repeats)
    for name in variants:
        if name not in VARIANTS:
            raise InputError(unknown("variant", name, VARIANTS))
    for name, value in [("repeats", num_repeats), *(("batch_sizes", size) for size in batch_sizes)]:
        Bounds(1).check(name, value)
    result, rates = _head(config, device), _rates(config, device)
    result |= {
        "repeats": num_repeats,
        "rates": dataclasses.asdict(rates),
        "start": None,
        "rows": [],
        "load_averages": [],
    }
    for batch_size in batch_sizes:
        for variant in variants:
            changed = override(config, {"batch_size": batch_size} | VARIANTS[variant])
            rows = _rows(changed, variant, device, num_repeats, rates, forward)
            result["rows"] += [dataclasses.asdict(row) for row in rows]
            result["load_averages"].append(os.getloadavg()[0])
            update(result)
    if starts:
        try:
            start: dict[str, Any] = start_times(config)
        except RuntimeError as error:  # the other measurements are kept
            start = {"error": str(error)}
        result["start"] = {"batch_size": config.batch_size} | start
        update(result)
    return result


def supported_variants(config: RunConfig, device: torch.device) -> Sequence[str]:
    """The variants for a device, without the persistent kernels where they do not run."""
    variants, model = DEFAULT_VARIANTS[device.type], plain_model(override(config, VARIANTS["persistent"]))
    runs = model.block_kernels(device, compute_dtype(config.train.precision, device)).name == "persistent"
    return [name for name in variants if runs or name != "persistent"]


def _head(config: RunConfig, device: torch.device) -> dict[str, Any]:
    """The machine, the software and the model."""
    env, model = environment(device_name(device)), plain_model(config)
    forward, training = flop_per_image(model)
    return {
        "recipe": config.recipe,
        "changed": _changed(config),
        "images": shape_of(config.data)._asdict(),
        "num_params": model.num_params,
        "num_gpus": 1 if device.type == "cuda" else 0,
        "precision": "bf16" if uses_bf16(config.train.precision, device) else "fp32",
        "flop_per_image": {"forward": forward, "training": training},
    } | {key: env[key] for key in ("device", "versions", "cuda", "commit", "dirty", "command", "started")}


def _changed(config: RunConfig) -> dict[str, Any]:
    """The fields that differ from the recipe's, except `SET_BY_BENCH`."""
    if config.recipe not in RECIPES:
        return {}
    usual = flatten(recipe(config.recipe))
    found = {name: value for name, value in flatten(config).items() if value != usual[name]}
    return {name: str(value) for name, value in found.items() if name not in SET_BY_BENCH}


def _rates(config: RunConfig, device: torch.device) -> Rates:
    rates = measure_rates(device, compute_dtype(config.train.precision, device))
    if device.type == "cuda":  # or the first rows would hold it, and no others
        take_workspaces()
    _forget(device)
    return rates


def _rows(
    config: RunConfig, variant: str, device: torch.device, repeats: int, rates: Rates, forward: bool
) -> Iterator[Row]:
    """The measurements of one variant at one batch size; a failure is a row as well."""
    on_cpu, bf16 = plain_model(config), uses_bf16(config.train.precision, device)
    chosen = on_cpu.block_kernels(device, compute_dtype(config.train.precision, device))
    not_fused = chosen.reason if chosen.name == "reference" else None
    if variant == "fused" and not_fused:  # what a run would do instead
        config = override(config, {"train.kernels": "auto"})
    common = {"variant": variant, "batch_size": config.batch_size, "not_fused": not_fused}
    works = {
        "forward": forward_work(on_cpu, config.batch_size),
        "step": training_work(config, on_cpu, bf16=bf16),
        "recipe": None,
    }
    measurements: list[tuple[list[Mode], Callable[..., dict[str, Timing]]]] = [
        (["forward"], time_forward),
        (["step", "recipe"], time_training),
    ]
    for modes, measure in measurements if forward else measurements[1:]:
        held = _forget(device)
        with fitting_threads(device, config.batch_size * on_cpu.numbers_per_image):
            common["threads"] = torch.get_num_threads() if device.type == "cpu" else None
            try:
                timings = measure(config, device, repeats)
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
                timings = None  # the memory is freed after this, when the traceback is gone
        for mode in modes:
            if timings is None:
                yield Row(mode=mode, error="out of memory", **common)
            else:
                measured = _measured(timings[mode], config.batch_size, works[mode], rates)
                yield Row(mode=mode, peak_memory_gib=peak_memory_gib(device, held), **measured, **common)
    _forget(device)


def _out_of_memory(error: BaseException | None) -> bool:
    """Whether running out of memory caused an error; a broken capture, for example, raises another error."""
    return error is not None and (isinstance(error, torch.OutOfMemoryError) or _out_of_memory(error.__context__))


def _measured(timing: Timing, batch_size: int, work: Work | None, rates: Rates) -> dict[str, float]:
    """The fields of a row from the timing of one batch."""
    fields = {
        "images_per_s": batch_size / timing.median_s,
        "images_per_s_min": batch_size / max(timing.seconds),
        "images_per_s_max": batch_size / min(timing.seconds),
        "batch_ms": timing.median_s * 1e3,
    }
    if work is not None:
        flop_s, byte_s = work.limits_s(rates)
        fields |= {"flop_floor_ms": flop_s * 1e3, "byte_floor_ms": byte_s * 1e3}
    return fields


def _forget(device: torch.device) -> int:
    """Free the last measurement's memory and compiled code, of which torch keeps only a few versions.

    Returns:
        bytes on the GPU that are still in use.
    """
    torch.compiler.reset()
    return watch_memory(device)
