"""Measure the training speed of the model's choices by kind of kernels: results/speed/CHOICE.json.

    python -m benchmarks.speed [--only heads3,mla-q] [--out results/speed]

Without our kernels, `torch.compile` with a CUDA graph is used, at one batch size, because compiling takes longest; the
persistent kernels where they support the choice. A file contains the output of `pocketvit bench`, and under `choice` the
changes to the paper's model. A choice that has a file is not measured again. To compile in parallel first, run a process for
each choice with another --out, then the command for all.
"""

import argparse
from pathlib import Path

import torch

from pocketvit.bench.throughput import bench, supported_variants
from pocketvit.config import RunConfig, override
from pocketvit.device import choose_device
from pocketvit.files import write_json
from pocketvit.recipes import recipe

CHOICES = {
    "paper": {},
    "gelu-tanh": {"model.activation": "gelu_tanh"},
    "heads3": {"model.num_heads": 3},
    "width96-2cls": {"model.width": 96, "model.num_cls_tokens": 2},
    "mean-pooling": {"model.pool": "mean"},
    "mla-q": {"model.q_rank": 64},
    "mla-k": {"model.k_rank": 64},
    "mla-qk": {"model.q_rank": 64, "model.k_rank": 64},
    "mla-kv": {"model.k_rank": 64, "model.v_rank": 64},
    "mla-qkv": {"model.q_rank": 64, "model.k_rank": 64, "model.v_rank": 64},
}
BATCH_SIZES = (256, 1024)
COMPILED_AT = 256
REPEATS = 3


def measure(config: RunConfig, batch_sizes: tuple[int, ...] = BATCH_SIZES, repeats: int = REPEATS) -> dict:
    """A benchmark of training only (`pocketvit.bench.throughput.bench`) with every kind of kernels."""
    result, supported = None, supported_variants(config, choose_device(config.train.device))
    for batch_size in batch_sizes:
        variants = ["fused", *(["persistent"] if "persistent" in supported else [])]
        if batch_size == COMPILED_AT:
            variants.insert(0, "compiled")
        more = bench(config, batch_sizes=(batch_size,), variants=variants, repeats=repeats, forward=False, starts=False)
        if result is None:
            result = more
        else:
            result["rows"] += more["rows"]
            result["load_averages"] += more["load_averages"]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(CHOICES), help="choices, separated by commas")
    parser.add_argument("--out", type=Path, default=Path("results/speed"))
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("needs an NVIDIA GPU")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.only.split(","):
        file = arguments.out / f"{name}.json"
        if file.exists():
            continue
        result = measure(override(recipe("paper"), CHOICES[name]))
        result |= {"choice": CHOICES[name]}
        write_json(file, result)
        speeds = {(r["batch_size"], r["variant"], r["mode"]): round(r["images_per_s"]) for r in result["rows"]}
        print(name, speeds, flush=True)


if __name__ == "__main__":
    main()
