"""`pocketvit data`: list, download and check data sets."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from pocketvit.cli.parsing import parse, parse_command
from pocketvit.config import DataConfig
from pocketvit.terminal import say


def data_list_command(arguments: list[str]) -> int:
    """`pocketvit data list`."""
    parse(_nothing, arguments, "pocketvit data list", description="List the known data sets.")
    from pocketvit.data.formats.registry import FORMATS
    from pocketvit.data.sources import known_sources

    for source in known_sources():
        state = "ready" if source.present else f"pocketvit data get {source.name}"
        print(f"{source.name:<14} {source.description} ({source.size}; {state})")
        print(f"{'':<14} licence: {source.licence}; to train: {source.train}")
    print("hf:OWNER/NAME  a data set on the Hugging Face Hub (pocketvit data get hf:OWNER/NAME)")
    print("PATH           a file or folder of your own:")
    for known in FORMATS:
        print(f"{'':<14} {known.description}")
    return 0


def _nothing() -> None:
    """Take no arguments."""


@dataclass(frozen=True)
class GetArguments:
    """Download a data set, or resume a download that was cut off."""

    name: tyro.conf.Positional[str]
    """A name from `pocketvit data list`, or hf:OWNER/NAME."""
    data_dir: Path | None = None
    """The folder to download to; by default $POCKETVIT_DATA or ~/.cache/pocketvit."""


def data_get_command(arguments: list[str]) -> int:
    """`pocketvit data get NAME`."""
    parsed = parse_command(GetArguments, arguments, "pocketvit data get")
    from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

    from pocketvit.data.sources import get

    bar = Progress(*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    task = bar.add_task(parsed.name, total=None)

    def progress(done: int, total: int | None) -> None:
        bar.start()  # not before there is something to show
        bar.update(task, completed=done, total=total)

    try:
        path = get(parsed.name, data_dir=parsed.data_dir, progress=progress)
    finally:
        if bar.live.is_started:
            bar.stop()
    say(path)
    return 0


@dataclass(frozen=True, kw_only=True)
class CheckArguments(DataConfig):
    """Show what a data set contains."""

    source: tyro.conf.Positional[str] = tyro.MISSING
    """A known name, a path, or hf:OWNER/NAME."""
    skip_unreadable: tyro.conf.FlagConversionOff[bool] = False
    """Leave out images that cannot be read; else they are listed."""
    # A check takes no flags for what happens to images later.
    val_frac: float = field(default=0.0, init=False)
    repeats: Literal["fresh", "batch"] = field(default="fresh", init=False)
    num_repeats: int = field(default=3, init=False)
    balance: Literal["none", "loss", "sampling"] = field(default="none", init=False)
    keep: Literal["auto", "gpu", "host", "disk"] = field(default="auto", init=False)


def data_check_command(arguments: list[str]) -> int:
    """`pocketvit data check SOURCE`."""
    parsed = parse_command(CheckArguments, arguments, "pocketvit data check")
    from pocketvit.data.check import check

    say(check(parsed).text())
    return 0
