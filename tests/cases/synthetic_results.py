"""Synthetic results, with what a test does not look at filled in."""

from pathlib import Path

from pocketvit.runs.result import Evaluation, RunResult

CONTENT = {
    "test_accuracy": 0.9, "val_accuracy": None, "best_test_accuracy": None, "images_per_s": 1000.0, "curve": [],
    "recipe": "digits", "seed": 0, "config_hash": "de82639bc010", "data_fingerprint": "cd93b3364ccc49dc",
    "num_params": 1, "num_gpus": 1, "train_s": 10.0, "images_seen": 10_000, "peak_memory_gib": None,
    "device": "a GPU", "versions": {"torch": "2.11.0"}, "commit": None, "command": "pocketvit train", "total_s": 12.0,
}  # fmt: skip


def result_content(**fields) -> dict:
    """What a result.json holds."""
    return CONTENT | fields


def synthetic_result(**fields) -> RunResult:
    """The same as it is read."""
    content = result_content(**fields)
    content["curve"] = tuple(Evaluation(**point) for point in content["curve"])
    return RunResult(file=Path("result.json"), **content)
