"""Reading `metrics.jsonl`, to which a run adds a line after each pass."""

import json
from pathlib import Path
from typing import Any

from pocketvit.errors import InputError

KEYS = ("pass", "images", "loss", "lr", "train_s")
"""What every line holds; an evaluation adds `val_accuracy` or `test_accuracy`."""

TAIL_BYTES = 4096  # more than a line; of a run that goes on only the end is read, again and again


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Every line, one mapping a pass.

    Raises:
        InputError: there is no line, or one is damaged or lacks something.
    """
    metrics = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            held = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path} line {number} is not JSON ({error.msg}); was it cut off?") from error
        absent = [key for key in KEYS if not isinstance(held, dict) or key not in held]
        if absent:
            raise InputError(f"{path} line {number} lacks {', '.join(absent)}")
        metrics.append(held)
    if not metrics:
        raise InputError(f"{path} is empty: the run stopped before its first pass ended")
    return metrics


def whole_line(line: bytes) -> dict[str, Any] | None:
    """What a line holds; None where it is cut off or damaged."""
    try:
        held = json.loads(line)
        return held if line.endswith(b"\n") and held.keys() >= set(KEYS) else None
    except (ValueError, AttributeError, RecursionError):
        return None


def last_line(path: Path) -> dict[str, Any] | None:
    """What the last line of a run that goes on holds; None before the first, and where there is no run."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
            lines = file.read().splitlines(keepends=True)
    except OSError:
        return None
    return next((held for line in reversed(lines) if (held := whole_line(line))), None)
