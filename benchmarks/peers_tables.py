"""The table of PocketViT beside other libraries, from what `python -m benchmarks.peers` measured."""

from pathlib import Path
from statistics import median

from pocketvit.files import read_json
from pocketvit.report.text import count
from pocketvit.tables import ABSENT, markdown_table

NAMES = {
    "pocketvit": "PocketViT",
    "timm": "timm, `DataLoader`",
    "vit-pytorch": "vit-pytorch, plain loop",
    "huggingface": "Hugging Face `Trainer`",
    "torchvision": "torchvision, v2 transforms of batches",
}


def peers_table(file: Path) -> str:
    """What the same training takes with each library: medians over the runs, and PocketViT's speed as a ratio.

    Args:
        file: as `benchmarks/peers` writes it.
    """
    measured = read_json(file)
    medians = {row["peer"]: _medians(row["runs"]) for row in measured["rows"]}
    ours, task = medians["pocketvit"], measured["task"]
    rows = [
        {
            "library": NAMES[row["peer"]],
            "images/s": count(found["images_per_s"]),
            "PocketViT is": f"{ours['images_per_s'] / found['images_per_s']:.1f} ×" if found is not ours else ABSENT,
            "first step after": f"{found['first_step_s']:.1f} s",
            "whole command": f"{found['total_s']:.1f} s",
            "memory (GiB)": f"{found['gpu_memory_gib' if task['device'] == 'cuda' else 'memory_gib']:.2f}",
            "test accuracy (%)": f"{100 * found['accuracy']:.2f}",
            "lines": str(row["lines"]),
        }
        for row in measured["rows"]
        for found in [medians[row["peer"]]]
    ]
    runs, versions = len(measured["rows"][0]["runs"]), measured["versions"]
    images = count(measured["rows"][0]["runs"][0]["images"])
    libraries = ", ".join(f"{name} {versions[name]}" for name in versions if name not in ("python", "triton", "numpy"))
    note = (
        f"{measured['device']}, {measured['cpu_count']} CPU cores; {task['recipe']}, {images} training images. Medians of "
        f"{runs} run{'s' if runs > 1 else ''} each, in turns. Images/s include loading and augmentation, without the first "
        f"fifth. Seconds count from starting Python. Lines are those that a user writes. {libraries}."
    )
    return f"{markdown_table(rows, list(rows[0]))}\n\n{note}"


def _medians(runs: list[dict[str, float | None]]) -> dict[str, float]:
    found = {key: [value for run in runs if (value := run[key]) is not None] for key in runs[0]}
    return {key: median(values) for key, values in found.items() if values}
