"""Measure the seconds from starting Python to the end of the first training step.

This file runs as a separate process: `python -m pocketvit.bench.start CONFIG.yaml`.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pocketvit.config import RunConfig, load_config, save_config

REPEATS = 3
NUM_IMAGES = {"cuda": 50_000, "mps": 4_096, "cpu": 1_024}
"""Synthetic images to start on; on a GPU, all of them are loaded and augmented before the first step."""


def start_times(config: RunConfig) -> dict[str, float]:
    """Seconds to the first step with an empty compile cache (cold), and again with the cache that this leaves (warm).

    Returns:
        `cold_s` and `warm_s`, medians over `REPEATS`, and the extremes with `_min` and `_max` appended.
    Raises:
        RuntimeError: a process failed; the message has the end of its output.
    """
    found: dict[str, list[float]] = {"cold_s": [], "warm_s": []}
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "config.yaml"
            save_config(config, file)
            caches = {name: str(Path(folder) / name) for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")}
            for seconds in found.values():
                seconds.append(_seconds(file, os.environ | caches))
    medians = {name: statistics.median(seconds) for name, seconds in found.items()}
    ends = {f"{name}_{end.__name__}": end(seconds) for name, seconds in found.items() for end in (min, max)}
    return medians | ends


def _seconds(file: Path, environment: dict[str, str]) -> float:
    """Run this file as a process; the seconds until it reports the end of the step."""
    command = [sys.executable, "-m", "pocketvit.bench.start", str(file)]
    began = time.perf_counter()
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment, text=True) as process,
    ):
        done = any(line == "done\n" for line in process.stdout or ())  # user-defined code may print as well
        seconds = time.perf_counter() - began
        process.wait()
        if not done:
            errors.seek(0)
            raise RuntimeError(f"the measured start failed: {errors.read()[-2000:]}")
    return seconds


def main(file: Path) -> None:
    """Take one step, then print a line."""
    config = load_config(file, allow_code=True)  # whoever started the bench agreed to it
    from pocketvit.bench.synthetic import first_chunk, synthetic_trainer
    from pocketvit.device import choose_device, synchronize

    device = choose_device(config.train.device)
    trainer = synthetic_trainer(config, device, max(NUM_IMAGES[device.type], config.batch_size))
    trainer.step.set_chunk(first_chunk(trainer))
    trainer.step()
    synchronize(device)
    print("done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
