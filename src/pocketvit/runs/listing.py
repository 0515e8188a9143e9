"""All runs in a folder, finished or not."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pocketvit.config.yaml_text import read_yaml
from pocketvit.errors import InputError
from pocketvit.files import read_json
from pocketvit.runs.metrics import last_line
from pocketvit.runs.result import is_number, result_at

MARKS = {"env.json", "metrics.jsonl", "result.json", "checkpoint"}
"""What a run folder has besides config.yaml, some of it from its first second."""


@dataclass(frozen=True, kw_only=True)
class ListedRun:
    """What is known of a run; None for what is not."""

    folder: str
    state: Literal["finished", "unfinished", "damaged"]
    """damaged: there is a result.json, but it cannot be read."""
    recipe: str | None
    seed: int | None
    test_accuracy: float | None
    """After the last step; of an unfinished run after its last pass, if that was tested."""
    val_accuracy: float | None
    test_map: float | None = None
    """Mean average precision; only where an image may have several classes."""
    passes: int
    """Done."""
    all_passes: float | None
    train_s: float | None
    num_params: int | None
    started: str | None
    """Time of the first start, as in env.json."""
    device: str | None


def list_runs(folder: Path) -> list[ListedRun]:
    """The runs in a folder at any depth, or the run that it is, by when they were started.

    Raises:
        InputError: there is none.
    """
    runs = [listed(path) for path in _run_folders(folder)]
    if not runs:
        raise InputError(f"{folder}: no run in it" if folder.is_dir() else f"{folder}: no such folder")
    return sorted(runs, key=lambda run: (run.started or "", run.folder))


def _run_folders(folder: Path) -> Iterator[Path]:
    """Run folders, without looking into them or into hidden folders."""
    for path, inner, files in os.walk(folder):
        if "config.yaml" in files and MARKS & {*files, *inner}:
            inner.clear()
            yield Path(path)
        inner[:] = sorted(name for name in inner if not name.startswith("."))


def listed(path: Path) -> ListedRun:
    """What is known of the run in a folder; whatever cannot be read is unknown."""
    result = result_at(path / "result.json")
    last = last_line(path / "metrics.jsonl") or {}
    config, env = _held(read_yaml, path / "config.yaml", "config"), _held(read_json, path / "env.json")
    schedule = config.get("schedule")
    passes = schedule.get("passes") if isinstance(schedule, dict) else None
    device = result.device if result else env.get("device")
    return ListedRun(
        folder=str(path),
        state="finished" if result else "damaged" if os.path.lexists(path / "result.json") else "unfinished",
        recipe=result.recipe if result else _of(str, config.get("recipe")),
        seed=result.seed if result else _of(int, config.get("seed")),
        test_accuracy=result.test_accuracy if result else last.get("test_accuracy"),
        val_accuracy=result.val_accuracy if result else last.get("val_accuracy"),
        test_map=result.test_map if result else last.get("test_map"),
        passes=int(last.get("pass", 0)),
        all_passes=passes if is_number(passes) else None,
        train_s=result.train_s if result else last.get("train_s"),
        num_params=result.num_params if result else None,
        started=_of(str, env.get("started")),
        device=_of(str, device),
    )


def _held(read: Any, path: Path, *names: str) -> dict[str, Any]:
    """The fields in a file; none if it cannot be read."""
    try:
        held = read(path, *names)
    except InputError:
        return {}
    return held if isinstance(held, dict) else {}


def _of(kind: type, value: Any) -> Any:
    """A value of this type; None for any other."""
    return value if isinstance(value, kind) and not isinstance(value, bool) else None
