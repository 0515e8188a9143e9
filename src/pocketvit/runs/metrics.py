"""Read `metrics.jsonl`, to which a run appends a line after each pass."""

import json
from pathlib import Path
from typing import Any

from pocketvit.errors import InputError
from pocketvit.files import read_bytes, regular_size
from pocketvit.runs.result import is_number

KEYS = ("pass", "images", "loss", "lr", "train_s")
"""The keys of every line; an evaluation adds accuracy and loss, such as `test_accuracy` and `test_loss`, and with several
classes an image `test_map`."""

TAIL_BYTES = 4096  # more than a line; of a running run, only the end is read


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All lines, one mapping per pass.

    Raises:
        InputError: there is no line, or one is damaged or lacks something.
    """
    metrics = []
    try:
        lines = read_bytes(path).splitlines()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    for number, line in enumerate(lines, start=1):
        try:
            held = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{path} line {number} is not JSON ({getattr(error, 'msg', error)}); was it cut off?"
            ) from error
        absent = [key for key in KEYS if not isinstance(held, dict) or key not in held]
        if absent:
            raise InputError(f"{path} line {number} lacks {', '.join(absent)}")
        if wrong := _wrong(held):
            raise InputError(f"{path} line {number}: {wrong} is {held[wrong]!r:.80}; expected a finite number")
        metrics.append(held)
    if not metrics:
        raise InputError(f"{path} is empty: the run stopped before its first pass ended")
    return metrics


def _wrong(held: dict[str, Any]) -> str | None:
    """The first key of a line that should have a finite number but does not."""
    keys = (key for key in held if key in (*KEYS, "images_per_s") or key.endswith(("_accuracy", "_loss", "_map")))
    return next((key for key in keys if not is_number(held[key])), None)


def whole_line(line: bytes) -> dict[str, Any] | None:
    """The content of a line; None if it is cut off or damaged."""
    try:
        held = json.loads(line)
        return held if line.endswith(b"\n") and held.keys() >= set(KEYS) and not _wrong(held) else None
    except (ValueError, AttributeError, RecursionError):
        return None


def last_line(path: Path) -> dict[str, Any] | None:
    """The content of the last complete line; None before the first one, and without a run."""
    try:
        regular_size(path)
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
            lines = file.read().splitlines(keepends=True)
    except OSError:
        return None
    return next((held for line in reversed(lines) if (held := whole_line(line))), None)
