"""The readers: what each is given, and how PocketViT is asked to read it.

Most are commands, run as `pocketvit` runs them, so that what is printed counts as well.
"""

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from seeds import FOLDERS, FORMATS, fix_digests

Read = Callable[[Path, Path], None]
"""Reads the changed files in a folder; the second folder has the seeds."""


@dataclass(frozen=True)
class Reader:
    """One reader."""

    name: str
    seed: str
    """Its folder among the seeds, which has a folder for each variant."""
    pattern: str
    """The files that are changed."""
    read: Read
    slow: bool = False
    """Whether a case takes as long as ten of others, since it trains or draws."""


def command(*arguments: str) -> Read:
    """A command line, in which {} is the folder and {seeds} that of the seeds."""

    def read(folder: Path, seeds: Path) -> None:
        from pocketvit.cli import main

        os.environ.setdefault("POCKETVIT_DATA", str(folder.with_name(f"{folder.name}.home")))
        main([each.format(folder, seeds=seeds) for each in arguments])

    return read


def first(pattern: str, *before: str) -> Read:
    """A command on the first file of a folder that fits, or on one that is not there."""

    def read(folder: Path, seeds: Path) -> None:
        file = next(iter(sorted(folder.glob(pattern))), folder / "none")
        command(*before, str(file).replace("{", "{{").replace("}", "}}"))(folder, seeds)

    return read


def survey(folder: Path, _seeds: Path) -> None:
    """What `train --data FOLDER` looks at before it chooses a recipe."""
    from pocketvit.config import DataConfig
    from pocketvit.data.survey import survey as look

    look(DataConfig(source=str(folder), cache_dir=folder.with_name(f"{folder.name}.home")))


def config(folder: Path, _seeds: Path) -> None:
    from pocketvit.config import load_config

    load_config(folder / "config.yaml")


def checkpoint(folder: Path, _seeds: Path) -> None:
    """Changed checkpoints, under names that say that they are not."""
    from pocketvit.training.checkpoint import load_checkpoint

    fix_digests(folder / "checkpoint")
    load_checkpoint(folder / "checkpoint")


def resume(folder: Path, seeds: Path) -> None:
    fix_digests(folder / "checkpoint")
    command("train", "--resume", "{}")(folder, seeds)


def weights(folder: Path, _seeds: Path) -> None:
    """Weights to start from: which model they are of, and what a small model takes over of them."""
    from pocketvit.config import ModelConfig
    from pocketvit.config.weights import Weights
    from pocketvit.inference.model_file import described
    from pocketvit.model import ViT
    from pocketvit.training.start import start_from

    found = Weights.find(next(iter(folder.glob("x.*")), folder / "none"))
    described(found)
    fields = ModelConfig(width=32, depth=1, num_heads=2, patch_size=8)
    start_from(ViT(fields, image_size=(32, 32), num_classes=2), ("a", "b"), found)


def results(folder: Path, _seeds: Path) -> None:
    """All results in a folder, as every study looks for them."""
    from pocketvit.runs.result import find_results

    find_results([folder / "results"])


def cache(folder: Path, seeds: Path) -> None:
    os.environ["POCKETVIT_DATA"] = str(folder)
    command("data", "check", "{seeds}/data/x")(folder, seeds)


def download(folder: Path, _seeds: Path) -> None:
    """A server that sends a changed answer to everyone, and what an earlier call left behind."""
    from pocketvit.data.fetch import download

    answer = (folder / "response").read_bytes() if (folder / "response").is_file() else b""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(ConnectionError):  # who asked may have heard enough
                connection.recv(65_536)
                connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/x.bin"
    origin = folder / "x.bin.part.from"
    if origin.is_file():
        origin.write_bytes(origin.read_bytes().replace(b"http://127.0.0.1/x.bin", url.encode()))
    download.TRIES, download.TIMEOUT_S, download.sleep = 3, 2.0, lambda _: None
    download.download(url, folder / "x.bin", checksum=f"md5:{'0' * 32}")


def unpacked(folder: Path, _seeds: Path) -> None:
    """A downloaded archive, unpacked beside itself."""
    from pocketvit.data.fetch.unpack import unpack

    for file in sorted(folder.glob("x.*")):
        unpack(file, folder.with_name(f"{folder.name}.out"), "(?s).*", 2**20)


CHECK = command("data", "check", "{}")
PREDICT = command("predict", "{}/picture.png", "--run", "{}")

READERS = (
    *(Reader(f"image {kind}", f"image {kind}", "a/first*", CHECK) for kind in FORMATS),
    Reader("image foreign", "image foreign", "a/first*", CHECK),
    Reader("folder names", "image PNG", "*/*", CHECK),
    Reader("photos survey", "image PNG", "a/*", survey),
    Reader("npz", "npz", "*.npz", first("*.npz", "data", "check")),
    Reader("cifar folder", "cifar folder", "*", CHECK),
    Reader("cifar tar", "cifar tar", "*.tar*", first("*.tar*", "data", "check")),
    Reader("parquet", "parquet", "*.parquet", CHECK),
    Reader("labels.csv", "csv", "labels.csv", CHECK),
    Reader(
        "labels.csv separator", "csv separator", "labels.csv", command("data", "check", "{}", "--label-separator", "|")
    ),
    *(Reader(name, name, "*", CHECK) for name in FOLDERS),
    Reader("archive", "archive", "x.*", unpacked),
    Reader("cache", "cache", "decoded/*/*", cache),
    Reader("download", "download", "*", download),
    Reader("config.yaml", "run", "config.yaml", config),
    Reader("study.yaml", "study", "x.yaml", command("study", "{}/x.yaml", "--plan")),
    Reader("study results", "results", "results/*", results),
    Reader(
        "study plan", "results", "results/*", command("study", "{}/x.yaml", "--plan", "--results", "{}/results"), True
    ),
    Reader("model", "run", "model.safetensors", PREDICT),
    Reader("weights", "weights", "x.*", weights),
    Reader("predict picture", "run", "picture.png", PREDICT),
    Reader("predict config", "run", "config.yaml", PREDICT),
    *(
        Reader(f"report {file}", "run", file, command("report", "{}"), file != "result.json")
        for file in (
            "result.json",
            "metrics.jsonl",
            "predictions.npz",
            "samples.npz",
            "figures.npz",
            "env.json",
            "config.yaml",
        )
    ),
    *(
        Reader(f"runs {file}", "run", file, command("runs", "{}/.."))
        for file in ("result.json", "metrics.jsonl", "env.json", "config.yaml")
    ),
    *(
        Reader(f"compare {file}", "run", file, command("compare", "{}", "{seeds}/run/x"), file == "result.json")
        for file in ("result.json", "predictions.npz")
    ),
    *(Reader(f"eval {file}", "run", file, command("eval", "{}")) for file in ("result.json", "config.yaml")),
    Reader("checkpoint", "unfinished", "checkpoint/*", checkpoint),
    *(
        Reader(f"resume {file.partition('/')[0]}", "unfinished", file, resume, file != "config.yaml")
        for file in ("env.json", "metrics.jsonl", "checkpoint/*", "config.yaml")
    ),
)
"""All of them."""
