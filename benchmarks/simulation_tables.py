"""What docs/reading.md shows of results/simulations: how often a study's statistics are right."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pocketvit.files import read_json
from pocketvit.tables import markdown_table


def simulated_errors(folder: Path) -> str:
    """False alarms of whole studies without an effect, and coverage of an interval."""
    rows = [
        {"rows": str(r["rows"]), "seeds": str(r["seeds"]), "scatters more": _who(r),
         "false alarms": _share(r["moderated"]), "false alarms, one variance": _share(r["pooled"]),
         "coverage": _share(r["coverage_moderated"]), "coverage, one variance": _share(r["coverage_pooled"])}
        for r in _rows(folder, "errors") if r["factor"] in (1, 2, 4) and (r["rows"], r["seeds"]) != (4, 3)
    ]  # fmt: skip
    return markdown_table(rows, list(rows[0]))


def simulated_power(folder: Path) -> str:
    """The difference that is detected with 80 % power."""
    rows = [
        {"rows": str(r["rows"]), "seeds": str(r["seeds"]), "difference": f"{r['moderated']:.2f}",
         "with one variance": f"{r['pooled']:.2f}", "ratio": f"{r['moderated'] / r['pooled']:.2f}"}
        for r in _rows(folder, "power")
    ]  # fmt: skip
    return markdown_table(rows, list(rows[0]))


def simulated_seeds(folder: Path) -> str:
    """Three ways to take a difference between a row of three runs and a baseline of five."""
    names = {"common": "common seeds only", "all": "all seeds", "least_squares": "generalized least squares"}
    rows = []
    for r in _rows(folder, "seeds"):
        row = {"seed variance / noise": f"{r['seed_variance_over_noise']:g}", "difference over": names[r["rule"]],
               "bias": f"{r['bias']:+.2f}".replace("-", "−"), "root-mean-square error": f"{r['rms_error']:.2f}"}  # fmt: skip
        known = "power" in r
        row |= {
            "false alarms": _share(r["false_alarms"]) if known else "—",
            "power": _share(r["power"]) if known else "—",
        }
        rows.append(row)
    return markdown_table(rows, list(rows[0]))


def _rows(folder: Path, name: str) -> list[Mapping[str, Any]]:
    return read_json(folder / f"{name}.json")["rows"]


def _who(record: Mapping[str, Any]) -> str:
    if record["noisy"] == "none":
        return "none"
    return f"{'the baseline' if record['noisy'] == 'baseline' else 'one row'}, × {record['factor']}"


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"
