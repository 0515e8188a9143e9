"""Table of docs/fast.md: the training speed of several configurations by kind of kernels."""

from collections.abc import Mapping
from typing import Any

from pocketvit.report.text import count
from pocketvit.tables import ABSENT, ABSENT_YET, markdown_table

SIDE_BY_SIDE = ((256, "compiled"), (256, "fused"), (256, "persistent"), (1024, "fused"), (1024, "persistent"))
"""Batch size and variant of each column of speeds."""
COMPARED = ((256, "fused", "compiled"), (256, "persistent", "fused"), (1024, "persistent", "fused"))
"""Batch size of each ratio, and its two variants."""
NOTE = (
    "Thousand images/s of passes as in a run, including drawing and augmentation: median of {repeats} repeats ± half the "
    "distance from the slowest to the fastest. Compiled: `torch.compile` and a CUDA graph, none of our kernels. The variants "
    "of a choice were measured one after the other in one call."
)


def choices_table(results: Mapping[str, Mapping[str, Any] | None]) -> str:
    """The machine, one row per choice, and notes, as Markdown.

    Args:
        results: by name, as `benchmarks/speed.py` writes them; none if not measured.
    """
    measured = {name: result for name, result in results.items() if result}
    if not measured:
        return f"{ABSENT_YET.capitalize()}."
    rows = [{"choice": f"`{name}`"} | _cells(result) for name, result in results.items()]
    devices = {result["device"] for result in measured.values()}
    if len(devices) > 1:
        of_row = [result["device"] if result else ABSENT for result in results.values()]
        rows = [row | {"hardware": device} for row, device in zip(rows, of_row, strict=True)]
    reasons = {name: why for name, result in measured.items() if (why := _not_fused(result))}
    plain = [f"Blocks not fused for `{name}`: {why}." for name, why in reasons.items()]
    repeats = " or ".join(sorted({str(result["repeats"]) for result in measured.values()}))
    note = " ".join([NOTE.format(repeats=repeats), *plain])
    return f"{_where(list(measured.values()))}\n\n{markdown_table(rows, list(rows[0]))}\n\n{note}"


def _cells(result: Mapping[str, Any] | None) -> dict[str, str]:
    """One configuration, by column."""
    rows = {(row["batch_size"], row["variant"], row["mode"]): row for row in result["rows"]} if result else {}
    cells = {"parameters": count(result["num_params"]) if result else ABSENT_YET}
    for batch_size, variant in SIDE_BY_SIDE:
        cells[f"{batch_size:,} {variant}"] = _speed(rows.get((batch_size, variant, "recipe")))
    for batch_size, *variants in COMPARED:
        pair = [(rows.get((batch_size, variant, "recipe")) or {}).get("images_per_s") for variant in variants]
        cells[f"{batch_size:,} {' / '.join(variants)}"] = f"{pair[0] / pair[1]:.2f}" if all(pair) else ABSENT
    return cells


def _speed(row: Mapping[str, Any] | None) -> str:
    """Thousand images/s with half their range: 127.77 ± 0.01."""
    if row is None:
        return ABSENT
    if row["error"]:
        return row["error"]
    half = (row["images_per_s_max"] - row["images_per_s_min"]) / 2
    return f"{row['images_per_s'] / 1e3:.2f} ± {half / 1e3:.2f}"


def _not_fused(result: Mapping[str, Any]) -> str | None:
    """Why a configuration's fused variant does not use the fused kernels."""
    return next((row["not_fused"] for row in result["rows"] if row["variant"] == "fused" and row["not_fused"]), None)


def _where(results: list[Mapping[str, Any]]) -> str:
    """The machine and its load."""
    heads = {f"{result['device']}, PyTorch {result['versions']['torch']}, {result['precision']}" for result in results}
    loads = [load for result in results for load in result["load_averages"]]
    busy = f" Load average {min(loads):.1f} – {max(loads):.1f}." if loads else ""
    return f"{' or '.join(sorted(heads))}.{busy}"
