"""Train on one and on several GPUs with torchrun, for speed by batch size and for accuracy.

    python -m benchmarks.scaling --gpus 1,2 --data cifar10
    python -m benchmarks.scaling --accuracy --gpus 2 --seeds 0,1,2 --data cifar10

Speed is that of the whole recipe over a few passes: results/scaling/speed/GPUS-BATCH.json. Accuracy is that of complete
runs: results/scaling/paper-GPUSgpus-sSEED.json; those on one GPU are in results/paper-baseline. Runs that have a file are
not repeated.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pocketvit.config import RunConfig, override
from pocketvit.recipes import recipe
from pocketvit.runs.metrics import read_metrics
from pocketvit.runs.result import RunResult
from pocketvit.studies.execution.launch import command_line

BATCH_SIZES = (256, 1024, 4096)
PASSES = 12
SHORT = {
    "schedule.passes": PASSES,
    "schedule.warmup_passes": 1,
    "train.eval_every_passes": PASSES,
    "train.checkpoint_every_passes": 0,
}
"""Overrides for a run that only measures speed."""


def speed_config(batch_size: int) -> RunConfig:
    """The run that measures the speed of a batch size."""
    return override(recipe("paper"), SHORT | {"batch_size": batch_size})


def accuracy_config(seed: int) -> RunConfig:
    """The paper's run."""
    return override(recipe("paper"), {"seed": seed})


def runs(
    accuracy: bool, gpus: list[int], batch_sizes: list[int], seeds: list[int]
) -> Iterator[tuple[str, int, RunConfig]]:
    """The runs to make: name of the file, number of GPUs, configuration."""
    for num_gpus in gpus:
        if not accuracy:
            yield from ((f"{num_gpus}-{size}", num_gpus, speed_config(size)) for size in batch_sizes)
        elif num_gpus > 1:
            yield from ((f"paper-{num_gpus}gpus-s{seed}", num_gpus, accuracy_config(seed)) for seed in seeds)


def run(num_gpus: int, config: RunConfig, folder: Path) -> RunResult:
    """Train in `folder`; returns the result with the batch size and the seconds of each pass in `extra`."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_gpus}", "-m"]
    subprocess.run([*command, *command_line(config), "--out", str(folder)], check=True, stdout=subprocess.DEVNULL)
    ends = [0.0, *(line["train_s"] for line in read_metrics(folder / "metrics.jsonl"))]
    seconds = [end - start for start, end in zip(ends, ends[1:], strict=False)]
    more = {"batch_size": config.batch_size, "pass_train_s": seconds}
    return replace(RunResult.read(folder / "result.json"), extra=more)


def told(name: str, result: RunResult) -> str:
    """A run in one line."""
    return f"{name}: {result.images_per_s:,.0f} images/s, {100 * result.test_accuracy:.2f} %"


def numbers(text: str) -> list[int]:
    """Whole numbers separated by commas."""
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accuracy", action="store_true", help="make complete runs instead of measuring speed")
    parser.add_argument("--gpus", type=numbers, default=[1, 2], help="numbers of GPUs, separated by commas")
    parser.add_argument("--batch-sizes", type=numbers, default=list(BATCH_SIZES), help="for speed, separated by commas")
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2], help="for accuracy, separated by commas")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--out", type=Path, help="by default results/scaling/speed, or results/scaling for accuracy")
    arguments = parser.parse_args()
    out = arguments.out or Path("results/scaling" if arguments.accuracy else "results/scaling/speed")
    out.mkdir(parents=True, exist_ok=True)
    for name, num_gpus, config in runs(arguments.accuracy, arguments.gpus, arguments.batch_sizes, arguments.seeds):
        file = out / f"{name}.json"
        if file.exists():
            continue
        with tempfile.TemporaryDirectory() as folder:
            result = run(num_gpus, override(config, {"data.source": arguments.data}), Path(folder) / "run")
        replace(result, file=file).write()
        print(told(name, result), flush=True)


if __name__ == "__main__":
    main()
