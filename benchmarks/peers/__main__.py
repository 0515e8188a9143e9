"""Train the same model on the same images with PocketViT and with other libraries, and measure what each takes.

    python -m benchmarks.peers digits|paper [--source cifar10] [--device cpu|cuda] [--passes N] [--rounds 3]
                               [--only NAME,NAME] [--out FILE.json]

Each peer is a script of this folder, written as its documentation advises, and started in a new Python. The peers run
in turns, `--rounds` times. Model, images, batch size, number of passes, peak learning rate, weight decay, label
smoothing and augmentation are the recipe's, with these exceptions:

- vit-pytorch, Hugging Face and torchvision have no stochastic depth;
- all but Hugging Face and PocketViT schedule the learning rate by their own form of warm-up and cosine;
- torchvision's transforms for batches draw once for a whole batch, the others for each image;
- on a GPU all run in bf16, and all but PocketViT, which has its own kernels, through torch.compile.

Installing them: `pip install 'pocketvit[data,peers]'`, with the torchvision that fits the installed PyTorch.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tokenize
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from benchmarks.peers.clock import BEGAN
from benchmarks.peers.task import FOLDER, Task
from pocketvit.config import RunConfig, override
from pocketvit.data import channel_stats, open_splits
from pocketvit.device import device_name
from pocketvit.recipes import recipe
from pocketvit.runs.provenance import environment

HERE = Path(__file__).parent
PEERS = {
    "pocketvit": ("pocketvit_train",),
    "timm": ("timm_loader", "loading"),
    "vit-pytorch": ("vit_pytorch_loop", "loading"),
    "huggingface": ("huggingface_trainer", "loading"),
    "torchvision": ("torchvision_tensors",),
}
"""The files of each peer."""
PACKAGES = ("timm", "vit-pytorch", "transformers", "accelerate", "torchvision")
NOT_COUNTED = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def lines_of(files: tuple[str, ...]) -> int:
    """Lines that a user would write: with code, without docstrings and what belongs to the clock."""
    return sum(_lines((HERE / f"{file}.py").read_text()) for file in files)


def _lines(text: str) -> int:
    clock = {i for i, line in enumerate(text.splitlines(), 1) if "clock" in line.lower() or "peers.task" in line}
    code: set[int] = set()
    statement: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NOT_COUNTED:
            statement.append(token)
        elif token.type in (tokenize.NEWLINE, tokenize.ENDMARKER):
            if not (len(statement) == 1 and statement[0].type == tokenize.STRING):
                code |= {line for part in statement for line in range(part.start[0], part.end[0] + 1)}
            statement = []
    return len(code - clock)


def make_task(config: RunConfig, source: str, device: str, passes: int, folder: Path) -> Task:
    """Write the task of a recipe into a folder."""
    splits = open_splits(override(config, {"data.source": source}).data)
    mean, std = channel_stats(splits.train.images)
    model, augment, optim = config.model, config.augment, config.optim
    task = Task(
        recipe=config.recipe or "",
        source=source,
        device=device,
        num_workers=min(os.cpu_count() or 1, 16),
        side=splits.train.images.shape[1],
        num_classes=len(splits.class_names),
        mean=mean.tolist(),
        std=std.tolist(),
        patch_size=model.patch_size,
        width=model.width,
        depth=model.depth,
        num_heads=model.num_heads,
        hidden=model.hidden_width,
        drop_path=model.drop_path,
        batch_size=config.batch_size,
        passes=passes,
        warmup=config.schedule.warmup_passes / config.schedule.passes,
        lr=optim.lr,
        weight_decay=optim.weight_decay,
        label_smoothing=optim.label_smoothing,
        flip=augment.flip_prob,
        crop_pad=augment.crop_pad,
        autoaugment=augment.policy == "cifar10",
        erase=augment.erase_prob,
        mix=augment.cutmix_prob + augment.mixup_prob,
    )
    names = {"train": splits.train, "test": splits.test}
    task.write(folder, {f"{n}_{k}": np.asarray(getattr(d, k)) for n, d in names.items() for k in ("images", "labels")})
    return task


def measure(name: str, folder: Path, device: str) -> dict[str, Any]:
    """One run of a peer: what its clock says, the seconds of the whole process, and on a CPU its processes' peak memory."""
    began = time.time()
    environ = os.environ | {FOLDER: str(folder), BEGAN: str(began), "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", f"benchmarks.peers.{PEERS[name][0]}"]
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, env=environ, stdout=output, stderr=subprocess.STDOUT, text=True)
        memory = 0
        while process.poll() is None:
            if device == "cpu":  # a CUDA process has so many pages that adding them up would slow it down
                memory = max(memory, _memory(process.pid))
            time.sleep(0.25)
        total_s = time.time() - began
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise SystemExit(f"{name} failed:\n{text[-3000:]}")
    measured = json.loads(text.strip().splitlines()[-1])
    return measured | {"total_s": total_s, "memory_gib": memory / 2**30 or None, "load_average": os.getloadavg()[0]}


def _memory(pid: int) -> int:
    """Bytes of a process and its workers; what they share counts once."""
    try:
        main = psutil.Process(pid)
        return main.memory_info().rss + sum(child.memory_full_info().uss for child in main.children(recursive=True))
    except psutil.Error:
        return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=["digits", "paper"])
    parser.add_argument("--source")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--passes", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(PEERS))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    config = recipe(arguments.recipe)
    names = arguments.only.split(",")
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as temporary:
        source = arguments.source or config.data.source
        passes = arguments.passes or config.schedule.passes
        task = make_task(config, source, arguments.device, passes, Path(temporary))
        for number in range(arguments.rounds):
            for name in names:
                runs[name].append(run := measure(name, Path(temporary), arguments.device))
                print(f"{number} {name:12} {run['images_per_s']:>9,.0f} images/s, first step {run['first_step_s']:5.1f} s, "
                      f"in all {run['total_s']:6.1f} s, {run['accuracy']:.2%}", flush=True)  # fmt: skip
            if arguments.out:
                write(arguments.out, task, runs)
    for name in names:
        speed = statistics.median(run["images_per_s"] for run in runs[name])
        print(f"{name:12} {speed:>9,.0f} images/s, {lines_of(PEERS[name])} lines")


def write(file: Path, task: Task, runs: dict[str, list[dict[str, Any]]]) -> None:
    """Write the runs of all peers, with the task and the machine."""
    env = environment(device_name(torch.device(task.device)))
    env["versions"] |= {package: version(package) for package in PACKAGES}
    rows = [{"peer": name, "lines": lines_of(PEERS[name]), "runs": of_peer} for name, of_peer in runs.items()]
    settings = {key: value for key, value in vars(task).items() if key not in ("arrays", "source")}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(env | {"task": settings, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
