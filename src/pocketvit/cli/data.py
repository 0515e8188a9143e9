"""`pocketvit data`: list, get and check image sets."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pocketvit.cli.parsing import parse


def data_list_command(arguments: list[str]) -> int:
    """`pocketvit data list`."""
    parse(_nothing, arguments, "pocketvit data list", description="The data sets known by name.")
    from pocketvit.data.sources import known_sources

    for source in known_sources():
        state = "here" if source.present else f"pocketvit data get {source.name}"
        print(f"{source.name:<10} {source.description}  [{source.size}; {state}]")
    print("PATH       a folder of class folders, a CIFAR archive, Hugging Face parquet, or an .npz file")
    print("hf:OWNER/NAME  a data set on the Hugging Face Hub")
    return 0


def _nothing() -> None:
    """Take no arguments."""


def data_get_command(arguments: list[str]) -> int:
    """`pocketvit data get NAME`."""

    def arguments_of(name: Annotated[str, tyro.conf.Positional], data_dir: Path | None = None) -> tuple:
        return name, data_dir

    name, data_dir = parse(arguments_of, arguments, "pocketvit data get", description="Download a data set.")
    from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

    from pocketvit.data.sources import get

    bar = Progress(*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    task = bar.add_task(name, total=None)

    def progress(done: int, total: int | None) -> None:
        bar.start()  # not before there is something to show
        bar.update(task, completed=done, total=total)

    try:
        path = get(name, data_dir=data_dir, progress=progress)
    finally:
        if bar.live.is_started:
            bar.stop()
    print(path)
    return 0


@dataclass(frozen=True)
class CheckArguments:
    """What a data set holds."""

    source: tyro.conf.Positional[str]
    """A known name, a path, or hf:OWNER/NAME."""
    format: str | None = None
    """The format of a path; found by itself when none."""
    resize: int | None = None
    """Resize every image to this many pixels square."""


def data_check_command(arguments: list[str]) -> int:
    """`pocketvit data check SOURCE`."""
    parsed = parse(CheckArguments, arguments, "pocketvit data check")
    from pocketvit.data.sources import check

    print(check(parsed.source, format=parsed.format, resize=parsed.resize).text())
    return 0
