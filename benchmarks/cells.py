"""Run many cells (rows of overrides × seeds) on the GPUs of one machine, one training at a time on each.

    python benchmarks/cells.py benchmarks/design_space.yaml --data DIR --out runs/ --results results/ [--gpus 0,1]

While one cell trains, the next ones on that GPU import, compile and capture; a lock held during training keeps the
timings apart. A cell whose result is there is not run again. Each result.json is copied to
RESULTS/<row>-s<seed>.json.
"""

import argparse
import fcntl
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

from pocketvit.config import RunConfig, flatten, load_config, override, save_config
from pocketvit.recipes import recipe
from pocketvit.studies import load_study
from pocketvit.training.progress import Silent

AHEAD = 3
"""Processes on a GPU at once: one trains, the others get ready."""


class Locked(Silent):
    """Trains only while it holds the GPU's lock."""

    def __init__(self, lock: Path) -> None:
        self.file = open(lock, "w")

    def start(self, total_steps: int, done_steps: int) -> None:
        fcntl.flock(self.file, fcntl.LOCK_EX)

    def stop(self) -> None:
        fcntl.flock(self.file, fcntl.LOCK_UN)


def run_cell(folder: Path, lock: Path) -> None:
    """Train one cell in this process."""
    from pocketvit.training import train

    config = load_config(folder / "cell.yaml")
    sys.argv = command(config)
    train(override(config, {"out": folder / "run"}), Locked(lock))


def command(config: RunConfig) -> list[str]:
    """The command line that trains this configuration."""
    base = flatten(recipe(config.recipe))
    changed = {name: value for name, value in flatten(config).items() if value != base[name] and name != "out"}
    flags = [part for name, value in changed.items() for part in ("--" + name.replace("_", "-"), str(value))]
    return ["pocketvit", "train", config.recipe, *flags]


def work(gpu: str, todo: "queue.Queue[str]", out: Path, results: Path, started: float) -> None:
    """Take cells until none is left."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": gpu, "TORCHINDUCTOR_COMPILE_THREADS": "6"}
    while True:
        try:
            name = todo.get_nowait()
        except queue.Empty:
            return
        with open(out / name / "log.txt", "w") as log:
            command = [sys.executable, __file__, "--cell", str(out / name), "--lock", str(out / f"gpu{gpu}.lock")]
            code = subprocess.run(command, stdout=log, stderr=log, env=environment, check=False).returncode
        result = out / name / "run" / "result.json"
        if code == 0:
            shutil.copy(result, results / f"{name}.json")
            state = "accuracy {test_accuracy:.4f} {images_per_s:,.0f} images/s".format(**json.loads(result.read_text()))
        else:
            state = f"FAILED ({code}): " + (out / name / "log.txt").read_text()[-300:]
        print(f"{time.monotonic() - started:6.0f} s  gpu {gpu}  {name}: {state}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", type=Path)
    parser.add_argument("--data", help="where the images are; by default as the recipe says")
    for flag in ("out", "results"):
        parser.add_argument(f"--{flag}", type=Path)
    parser.add_argument("--gpus", default="0")
    parser.add_argument("--only", default="", help="run only the cells whose names start with one of these, by comma")
    parser.add_argument("--cell", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--lock", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cell:
        run_cell(arguments.cell, arguments.lock)
        return
    todo: queue.Queue[str] = queue.Queue()
    arguments.results.mkdir(parents=True, exist_ok=True)
    elsewhere = {"data.source": arguments.data} if arguments.data else {}
    for cell in load_study(arguments.study).cells():
        name, config = cell.name, override(cell.config, elsewhere)
        if not name.startswith(tuple(arguments.only.split(","))) or (arguments.results / f"{name}.json").exists():
            continue
        (arguments.out / name).mkdir(parents=True, exist_ok=True)
        save_config(config, arguments.out / name / "cell.yaml")
        todo.put(name)
    began = time.monotonic()
    workers = [
        threading.Thread(target=work, args=(gpu, todo, arguments.out, arguments.results, began))
        for _ in range(AHEAD)
        for gpu in arguments.gpus.split(",")
    ]
    for worker in workers:
        worker.start()
        time.sleep(0.2)  # so that the first cells go to different GPUs, in order
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main()
