"""The results of `pocketvit bench` and `pocketvit profile` as text."""

from collections.abc import Mapping
from typing import Any

from pocketvit.report.text import count
from pocketvit.tables import ABSENT, markdown_table

MODES = {"forward": "forward", "step": "training step", "recipe": "whole recipe"}
"""The modes of a benchmark, and the headings of their columns."""
SPEED_NOTE = (
    "Images/s: median of {repeats} repeats, slowest to fastest in brackets. Forward: classification in evaluation "
    "mode. Training step: loss, mixing, backward and update, on images on the device. Whole recipe: passes as in a run, "
    "including drawing and augmentation. Arithmetic and memory limit: the least time of a training step's matrix products "
    "at the measured rate, and of its memory traffic (images, weights with gradients and optimizer state, each block's "
    "input once each way) at the measured bandwidth, as a share of the time taken. Memory: peak allocated by tensors."
)


def speed_table(result: Mapping[str, Any]) -> str:
    """What `pocketvit.bench.throughput.bench` returns as Markdown: the machine, a row per batch size and variant, notes."""
    measured: dict[tuple[int, str], dict[str, Mapping[str, Any]]] = {}
    for row in result["rows"]:
        measured.setdefault((row["batch_size"], row["variant"]), {})[row["mode"]] = row
    rows = [_speed_cells(modes) for modes in measured.values()]
    table = markdown_table(rows, list(rows[0]))
    return f"{_where(result)}\n\n{table}\n\n{SPEED_NOTE.format(repeats=result['repeats'])}"


def speed_line(result: Mapping[str, Any]) -> str:
    """The latest measurements of a running benchmark."""
    if result["start"]:
        return _start(result["start"])
    last = result["rows"][-1]
    newest = [row for row in result["rows"] if all(row[key] == last[key] for key in ("batch_size", "variant"))]
    speeds = (f"{MODES[row['mode']]} {_speed(row)}" for row in newest)
    return f"batch {newest[0]['batch_size']}, {_variant(newest[0])}: {', '.join(speeds)}"


def _speed_cells(modes: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """One batch size and variant, by column."""
    step = modes["step"]
    speeds = {f"{heading}, images/s": _speed(modes[mode]) for mode, heading in MODES.items() if mode in modes}
    forward = {"forward (GiB)": _memory(modes["forward"])} if "forward" in modes else {}
    return {
        "batch": str(step["batch_size"]),
        "variant": _variant(step),
        **({"threads": str(step["threads"])} if step.get("threads") else {}),
        **speeds,
        "step (ms)": ABSENT if step["error"] else f"{step['batch_ms']:.2f}",
        "arithmetic limit": _share(step, "flop_floor_ms"),
        "memory limit": _share(step, "byte_floor_ms"),
        **forward,
        "training (GiB)": _memory(step),
    }


def _variant(row: Mapping[str, Any]) -> str:
    """The variant, and why blocks are not fused if the fused kernels are not supported."""
    unsupported = row["variant"] == "fused" and row["not_fused"]
    return f"fused (blocks not fused: {row['not_fused']})" if unsupported else row["variant"]


def _speed(row: Mapping[str, Any]) -> str:
    if row["error"]:
        return row["error"]
    middle, low, high = (count(row[f"images_per_s{end}"]) for end in ("", "_min", "_max"))
    return f"{middle} ({low} – {high})"


def _share(row: Mapping[str, Any], floor: str) -> str:
    return ABSENT if row["error"] else f"{row[floor] / row['batch_ms']:.1%}"


def _memory(row: Mapping[str, Any]) -> str:
    return ABSENT if row["peak_memory_gib"] is None else f"{row['peak_memory_gib']:.2f}"


def _where(result: Mapping[str, Any]) -> str:
    """The machine, its two rates, and the time of a start."""
    rates, loads = result["rates"], result["load_averages"]
    parts = [
        f"{result['device']}, PyTorch {result['versions']['torch']}, {result['precision']}; {_what(result)}, "
        f"{count(result['num_params'])} parameters, {result['flop_per_image']['training'] / 1e9:.3f} GFLOP per image.",
        f"Measured: {rates['matrix_flop_per_s'] / 1e12:.3g} TFLOP/s in a large matrix product, "
        f"{count(rates['copy_bytes_per_s'] / 1e9)} GB/s in a copy.",
    ]
    if result["start"]:
        parts.append(_start(result["start"]))
    if loads:
        parts.append(f"Load average {min(loads):.1f} – {max(loads):.1f}.")
    return " ".join(parts)


def _what(result: Mapping[str, Any]) -> str:
    """The recipe, its changed fields, and the synthetic images."""
    changed = ", ".join(f"{name}={value}" for name, value in result.get("changed", {}).items())
    words = [f"{result['recipe']} with {changed}" if changed else result["recipe"]]
    if images := result.get("images"):
        words.append("synthetic images of {height} × {width} pixels in {num_classes} classes".format_map(images))
    return ", ".join(words)


def _start(start: Mapping[str, Any]) -> str:
    """The time until the first step is done."""
    where = f"From starting Python to the end of the first step, batch size {start['batch_size']}"
    if "error" in start:
        return f"{where}: not measured: {start['error'].strip().splitlines()[-1]}."
    cold, warm = (f"{start[f'{name}_s']:.1f} s{_ends(start, name)}" for name in ("cold", "warm"))
    return f"{where}: {cold} with an empty compile cache, {warm} with a filled one."


def _ends(start: Mapping[str, Any], name: str) -> str:
    ends = [start.get(f"{name}_s_{end}") for end in ("min", "max")]
    return "" if None in ends else f" ({ends[0]:.1f} – {ends[1]:.1f})"


def profile_table(summary: Mapping[str, Any]) -> str:
    """What `pocketvit.bench.profile.profile` returns as Markdown: a step's phases, its longest kernels, and notes."""
    busy_ms = summary["busy_ms"]
    phases = [
        {"phase": name, "ms": f"{ms:.3f}", "share": f"{ms / busy_ms:.1%}"} for name, ms in summary["phases_ms"].items()
    ]
    kernels = [
        {
            "kernel": f"`{kernel['name']}`",
            "phase": kernel["phase"],
            "ms": f"{kernel['ms']:.3f}",
            "share": f"{kernel['frac']:.1%}",
            "runs per step": f"{kernel['runs']:.3g}",
        }
        for kernel in summary["kernels"]
    ]
    where = (
        f"{summary['device']}, PyTorch {summary['versions']['torch']}; {summary['recipe']}, batch size "
        f"{summary['batch_size']}: {busy_ms:.2f} ms of work in a step, {summary['step_ms']:.2f} ms from one step to "
        f"the next without the profiler. {summary['how']}"
    )
    tables = (markdown_table(rows, list(rows[0])) for rows in (phases, kernels))
    return "\n\n".join([where, *tables])
