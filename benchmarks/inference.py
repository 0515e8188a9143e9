"""Measure inference on the CPU: the exported model in onnxruntime, ours in PyTorch, and timm's of the same shape.

    python -m benchmarks.inference [RECIPE ...] [--threads 1 2] [--rounds 9] [--out FILE.json]

Each takes uint8 images in memory to logits, with as many threads as the others; Python's part is in the time. They run by
turns in one process, so that other work on the machine affects all; the ratio to ours is the median over the rounds of each
round's ratio. Other work shows in the spread and in the load average; on a busy machine only the ratio is meaningful. The
weights are random, which does not change the speed.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import timm
import torch
from safetensors.torch import load
from timm.models.vision_transformer import VisionTransformer

from pocketvit.device import device_name
from pocketvit.inference.export import plain, whole
from pocketvit.inference.trained_model import TrainedModel
from pocketvit.model import create_model
from pocketvit.recipes import recipe
from pocketvit.runs.provenance import environment

BATCH = 256
SINGLES = 20
"""Single images a round, one after the other."""
CPU = torch.device("cpu")


def programs(trained: TrainedModel, threads: int) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """What is compared, each from uint8 images (B, H, W, C) to logits (B, K)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(whole.onnx(trained, {})["model.onnx"], options)
    ours, theirs = whole.Whole(trained), whole.Whole(trained)  # the second with the same normalization
    files = plain.timm(trained, {}, recipe("paper").data)
    theirs.model = VisionTransformer(**json.loads(files["config.json"])["model_args"]).eval()
    theirs.model.load_state_dict(load(files["model.safetensors"]))

    def in_pytorch(model: torch.nn.Module) -> Callable[[np.ndarray], np.ndarray]:
        def classify(images: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return model(torch.from_numpy(images))[0].numpy()

        return classify

    return {
        "ours": in_pytorch(ours),
        "timm": in_pytorch(theirs),
        "onnxruntime": lambda images: session.run(["logits"], {"images": images})[0],
    }


def measure(name: str, threads: int, rounds: int) -> dict[str, Any]:
    """Run all programs by turns: images/s in batches of 256, ms for a single image, and the ratios of speeds to ours."""
    torch.set_num_threads(threads)
    model = create_model(name).eval()
    trained = TrainedModel(model, tuple(map(str, range(10))), (0.5,) * 3, (0.25,) * 3)
    images = np.random.default_rng(0).integers(0, 256, (BATCH, *model.image_size, 3), dtype=np.uint8)
    compared = programs(trained, threads)
    wanted = compared["ours"](images)
    speeds: dict[str, list[float]] = {side: [] for side in compared}
    latencies: dict[str, list[float]] = {side: [] for side in compared}
    for side, classify in compared.items():  # also warms up
        np.testing.assert_allclose(classify(images), wanted, atol=1e-4, err_msg=side)
    for _ in range(rounds):
        for side, classify in compared.items():
            began = time.perf_counter()
            classify(images)
            speeds[side].append(BATCH / (time.perf_counter() - began))
        for side, classify in compared.items():
            classify(images[:1])
            began = time.perf_counter()
            for i in range(SINGLES):
                classify(images[i : i + 1])
            latencies[side].append(1e3 * (time.perf_counter() - began) / SINGLES)
    return {
        "recipe": name,
        "threads": threads,
        "num_params": model.num_params,
        "batch_size": BATCH,
        "weights": "random",
        "images_per_s": speeds,
        "latency_ms": latencies,
        "speed_ratio": {side: _ratio(speeds[side], speeds["ours"]) for side in compared},
        "latency_ratio": {side: _ratio(latencies[side], latencies["ours"]) for side in compared},
    }


def _ratio(values: list[float], ours: list[float]) -> float:
    return statistics.median(value / own for value, own in zip(values, ours, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=["paper", "digits"])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    before, rows = os.getloadavg()[0], []
    for name, threads in product(arguments.recipes, arguments.threads):
        rows.append(row := measure(name, threads, arguments.rounds))
        for side in row["images_per_s"]:
            speed, latency = (statistics.median(row[what][side]) for what in ("images_per_s", "latency_ms"))
            ratio = row["speed_ratio"][side]
            print(f"{name}, {threads} threads, {side}: {speed:,.0f} images/s, {ratio:.2f} × ours; {latency:.2f} ms an image",
                  flush=True)  # fmt: skip
    content = environment(device_name(CPU)) | {
        "timm": timm.__version__,
        "onnxruntime": onnxruntime.__version__,
        "load_average_before": before,
        "load_average_after": os.getloadavg()[0],
        "rows": rows,
    }
    print(f"load average {before:.1f} before, {content['load_average_after']:.1f} after")
    if arguments.out:
        arguments.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
