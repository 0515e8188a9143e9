"""What limits a step on half a batch, the share of each of two GPUs: counters of every kernel, read by NVIDIA's ncu.

    ncu --clock-control none --profile-from-start off --csv --page raw --metrics METRICS \\
        python -m benchmarks.half_batch step 256 > 256.csv
    python -m benchmarks.half_batch table FILE.json 256.csv 128.csv

The first line runs some steps of the paper's recipe on synthetic images and shows ncu the last one; METRICS are those of
`COUNTERS`, separated by commas. It is repeated with 128 images. The second keeps what `docs/scaling.md` shows.
"""

import csv
import json
import sys
from pathlib import Path

DEVICE = "device__attribute_display_name"
COUNTERS = {
    "us": "gpu__time_duration.sum",
    "blocks": "launch__grid_size",
    "issue_percent": "smsp__issue_active.avg.pct_of_peak_sustained_active",
    "l2_percent": "lts__throughput.avg.pct_of_peak_sustained_elapsed",
    "memory_percent": "gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed",
}
"""ncu's names of what is kept."""


def step(batch_size: int) -> None:
    """Run four steps, the last one between CUDA's marks for profilers."""
    import torch

    from pocketvit.bench.synthetic import first_chunk, synthetic_trainer
    from pocketvit.config import override
    from pocketvit.recipes import recipe

    config = override(
        recipe("paper"), {"batch_size": batch_size, "train.kernels": "persistent", "train.device": "cuda"}
    )
    trainer = synthetic_trainer(config, torch.device("cuda", 0), 8 * batch_size)
    trainer.step.set_chunk(first_chunk(trainer))
    for _ in range(3):
        trainer.step()
    torch.cuda.synchronize()
    torch.cuda.profiler.start()
    trainer.step()
    torch.cuda.synchronize()
    torch.cuda.profiler.stop()


def counted(file: Path) -> tuple[str, list[dict[str, str | float]]]:
    """The GPU, and the kernels of one step in order, as ncu printed them."""
    lines = [line for line in file.read_text().splitlines() if line.startswith('"')]
    _, *launches = csv.DictReader(lines)  # the first row has the units
    kernels: list[dict[str, str | float]] = []
    for launch in launches:
        values = {name: float(launch[counter].replace(",", "")) for name, counter in COUNTERS.items()}
        values["us"] /= 1000
        kernels.append({"kernel": launch["Kernel Name"].partition("(")[0][:60]} | values)
    return launches[0][DEVICE], kernels


def main() -> None:
    what, *arguments = sys.argv[1:]
    if what == "step":
        step(int(arguments[0]))
        return
    out, *files = map(Path, arguments)
    found = {file.stem: counted(file) for file in files}
    (gpu,) = {gpu for gpu, _ in found.values()}
    content = {"gpu": gpu, "kernels": {size: kernels for size, (_, kernels) in found.items()}}
    out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
