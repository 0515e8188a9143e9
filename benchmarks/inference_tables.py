"""The table of docs/export.md: how fast an exported model is on a CPU."""

from pathlib import Path
from statistics import median

from pocketvit.files import read_json
from pocketvit.report.text import count
from pocketvit.tables import ABSENT_YET, markdown_table

NAMES = {"ours": "PocketViT in PyTorch", "timm": "timm in PyTorch", "onnxruntime": "exported, in onnxruntime"}


def inference_speed(file: Path) -> str:
    """Images/s and the time of one image, with their ranges over the rounds.

    Args:
        file: as `benchmarks/inference.py` writes it.
    """
    if not file.is_file():
        return ABSENT_YET
    measured = read_json(file)
    rows = []
    for row in measured["rows"]:
        for side, name in NAMES.items():
            speeds, times = row["images_per_s"][side], row["latency_ms"][side]
            rows.append({
                "model": f"`{row['recipe']}`",
                "threads": str(row["threads"]),
                "run by": name,
                "images/s": f"{count(median(speeds))} ({count(min(speeds))} – {count(max(speeds))})",
                "× PocketViT": f"{row['speed_ratio'][side]:.2f}",
                "one image, ms": f"{median(times):.2f} ({min(times):.2f} – {max(times):.2f})",
                "time, × PocketViT": f"{row['latency_ratio'][side]:.2f}",
            })  # fmt: skip
    load = f"{measured['load_average_before']:.1f} before and {measured['load_average_after']:.1f} after"
    rounds = len(measured["rows"][0]["images_per_s"]["ours"])
    note = (
        f"{measured['device']}; PyTorch {measured['versions']['torch']}, onnxruntime "
        f"{measured['onnxruntime']}, timm {measured['timm']}; fp32, from uint8 images in memory to logits, batches of "
        f"{measured['rows'][0]['batch_size']} and single images, random weights of the recipe's model. Median and range of "
        f"{rounds} rounds by turns in one process; ratios are medians of each round's. The load average was {load}: with other "
        "work on the machine, only the ratios are meaningful. `python -m benchmarks.inference`."
    )
    return f"{markdown_table(rows, list(rows[0]))}\n\n{note}"
