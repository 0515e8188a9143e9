"""Measure training images/s on the CPU: our step against timm's model of the same shape in a plain loop.

    python -m benchmarks.cpu_against_timm [RECIPE ...] [--batch-size 64] [--rounds 9] [--out FILE.json]

Theirs is the obvious loop: `timm`'s VisionTransformer with stochastic depth, label smoothing, backward,
`torch.optim.AdamW` with its defaults, on normalized images in memory. Ours is the whole `TrainStep`, which also
normalizes, erases and mixes from bytes, with as many threads as a run uses. Both are in fp32 and run alternately in one
process, so that other work on the machine affects both; the ratio is the median over the rounds of each round's ratio.
Other work shows in the spread and in the load average; on a busy machine, only the ratio is meaningful.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from pocketvit.bench.synthetic import first_chunk, synthetic_trainer
from pocketvit.config import override
from pocketvit.device import device_name
from pocketvit.recipes import recipe
from pocketvit.runs.provenance import environment
from pocketvit.training.trainer import Trainer

ROUND_IMAGES = {"paper": 128, "digits": 2048}
"""Images per side and round: about a second."""
CPU = torch.device("cpu")


def our_round(trainer: Trainer) -> Callable[[], None]:
    """Our steps over a chunk of synthetic images."""
    chunk = first_chunk(trainer)

    def run() -> None:
        trainer.step.set_chunk(chunk)
        trainer.step.step.zero_()
        for _ in range(chunk.num_steps):
            trainer.step()

    return run


def their_round(trainer: Trainer) -> Callable[[], None]:
    """The same number of steps of timm's model on the same images."""
    config, batch_size = trainer.config.model, trainer.config.batch_size
    model = VisionTransformer(
        img_size=trainer.model.image_size,
        patch_size=config.patch_size,
        num_classes=len(trainer.splits.class_names),
        embed_dim=config.width,
        depth=config.depth,
        num_heads=config.num_heads,
        mlp_ratio=config.mlp_ratio,
        drop_path_rate=config.drop_path,
    ).train()
    assert sum(p.numel() for p in model.parameters()) == trainer.model.num_params
    optim = trainer.config.optim
    optimizer = torch.optim.AdamW(model.parameters(), lr=optim.lr, weight_decay=optim.weight_decay)
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=optim.label_smoothing)
    pixels = torch.from_numpy(trainer.splits.train.images).permute(0, 3, 1, 2)  # (N, C, H, W)
    images = ((pixels / 255 - trainer.mean[:, None, None]) / trainer.std[:, None, None]).contiguous()
    labels = torch.from_numpy(trainer.splits.train.labels)
    batches = list(zip(images.split(batch_size), labels.split(batch_size), strict=True))

    def run() -> None:
        for batch, wanted in batches:
            optimizer.zero_grad()
            criterion(model(batch), wanted).backward()
            optimizer.step()

    return run


def compare(name: str, batch_size: int, rounds: int) -> dict[str, Any]:
    """Measure both sides alternately: images/s and their ratio."""
    num_images = ROUND_IMAGES.get(name, 128) // batch_size * batch_size or batch_size
    trainer = synthetic_trainer(
        override(recipe(name), {"batch_size": batch_size, "train.device": "cpu"}), CPU, num_images
    )
    sides = {"ours": our_round(trainer), "timm": their_round(trainer)}
    threads_of = {"ours": trainer.fitting_threads, "timm": nullcontext}
    speeds: dict[str, list[float]] = {side: [] for side in sides}
    threads = {}
    for _ in range(1 + rounds):  # the first warms up
        for side, run in sides.items():
            with threads_of[side]():
                began = time.perf_counter()
                run()
                speeds[side].append(num_images / (time.perf_counter() - began))
                threads[side] = torch.get_num_threads()
    speeds = {side: speed[1:] for side, speed in speeds.items()}
    ratios = [ours / theirs for ours, theirs in zip(speeds["ours"], speeds["timm"], strict=True)]
    return {
        "recipe": name,
        "batch_size": batch_size,
        "num_params": trainer.model.num_params,
        "num_gpus": 0,
        "threads": threads,
        "images_per_s": speeds,
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "load_average": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=["paper", "digits"])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    env = environment(device_name(CPU))
    rows = []
    print(f"{env['device']}, torch {torch.__version__}, timm {timm.__version__}")
    for name in arguments.recipes:
        rows.append(row := compare(name, arguments.batch_size, arguments.rounds))
        ours, theirs = (statistics.median(row["images_per_s"][side]) for side in ("ours", "timm"))
        ratio = f"{row['ratio']:.2f} ({row['ratio_min']:.2f} – {row['ratio_max']:.2f})"
        print(f"{name}, batch size {row['batch_size']}: ours {ours:,.0f} images/s, timm {theirs:,.0f}, ratio {ratio}, "
              f"load average {row['load_average']:.1f}", flush=True)  # fmt: skip
    if arguments.out:
        arguments.out.write_text(json.dumps(env | {"timm": timm.__version__, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
