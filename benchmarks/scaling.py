"""Images/s of the whole recipe over the number of GPUs and the batch size: results/scaling/speed/GPUS-BATCH.json.

    python benchmarks/scaling.py --gpus 1,2 --data cifar10 [--out results/scaling/speed]

Each file is the result.json of a short run under torchrun. A pair that has a file is not measured again.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BATCH_SIZES = (256, 1024, 4096)
PASSES = 12


def measure(num_gpus: int, batch_size: int, data: str, folder: Path) -> Path:
    """Run a few passes in `folder`, and return its result.json."""
    short = ["--schedule.passes", str(PASSES), "--schedule.warmup-passes", "1"]
    looks = ["--train.eval-every-passes", str(PASSES), "--train.checkpoint-every-passes", "0"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_gpus}"]
    command += ["-m", "pocketvit", "train", "paper", "--data", data, "--batch-size", str(batch_size)]
    subprocess.run([*command, *short, *looks, "--out", str(folder / "run")], check=True, stdout=subprocess.DEVNULL)
    return folder / "run" / "result.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", default="1,2", help="numbers of GPUs, by comma")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--out", type=Path, default=Path("results/scaling/speed"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for num_gpus in map(int, arguments.gpus.split(",")):
        for batch_size in BATCH_SIZES:
            file = arguments.out / f"{num_gpus}-{batch_size}.json"
            if file.exists():
                continue
            with tempfile.TemporaryDirectory() as folder:
                shutil.copy(measure(num_gpus, batch_size, arguments.data, Path(folder)), file)
            print(num_gpus, batch_size, round(json.loads(file.read_text())["images_per_s"]), flush=True)


if __name__ == "__main__":
    main()
