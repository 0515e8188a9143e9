"""`pocketvit bench` and `pocketvit profile`: the speed of a configuration on this machine, and where its time goes."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketvit.cli.parsing import flag_of, flags_of, parse
from pocketvit.cli.train import parse_train
from pocketvit.config import RunConfig
from pocketvit.errors import InputError
from pocketvit.files import write_json


@dataclass(frozen=True)
class BenchArguments:
    """Measure images/s and memory of a recipe (default paper) by batch size, on synthetic images.

    Also takes any field of a run: pocketvit bench paper --model.num-heads 3
    """

    batch_sizes: str | None = None
    """Separated by commas; by default --batch-size if given, else 32,64,128,256,512,1024 on a GPU, 16,64 on a CPU."""
    variants: str | None = None
    """Any of eager, compiled, fused and persistent, separated by commas; by default all supported; on a CPU, eager."""
    repeats: int | None = None
    """Timed repeats of each measurement; by default 5, on a CPU 3."""
    starts: bool = True
    """Also measure the seconds to the first step, in separate processes."""
    out: Path | None = None
    """A JSON file for the results, updated after each variant and batch size."""


@dataclass(frozen=True)
class ProfileArguments:
    """Break down a training step of a recipe (default paper) into phases and kernels, on synthetic images.

    Also takes any field of a run: pocketvit profile paper --batch-size 1024
    """

    out: Path = Path("profile")
    """The folder for profile.json, profile.png and trace.json.gz (for https://ui.perfetto.dev)."""


def bench_command(arguments: list[str]) -> int:
    """`pocketvit bench [RECIPE] [--FIELD VALUE ...] [--batch-sizes 32,64] [--out FILE.json] ...`."""
    given, config = _parse(BenchArguments, arguments, "pocketvit bench [RECIPE] [--FIELD VALUE ...]")
    batch_sizes = _numbers("--batch-sizes", given.batch_sizes)
    if batch_sizes is None and any(flag_of(part) == "--batch-size" for part in arguments):
        batch_sizes = (config.batch_size,)
    if given.out is not None:
        _check_writable(given.out)
    from rich.console import Console

    from pocketvit.bench.table import speed_line, speed_table
    from pocketvit.bench.throughput import bench

    progress = Console(stderr=True)

    def update(result: dict[str, Any]) -> None:
        progress.print(speed_line(result), highlight=False, markup=False, soft_wrap=True)
        if given.out is not None:
            write_json(given.out, result)

    variants = given.variants.split(",") if given.variants else None
    result = bench(
        config, batch_sizes=batch_sizes, variants=variants, repeats=given.repeats, starts=given.starts, update=update
    )
    print(speed_table(result))
    return 0


def profile_command(arguments: list[str]) -> int:
    """`pocketvit profile [RECIPE] [--FIELD VALUE ...] [--out DIR]`."""
    given, config = _parse(ProfileArguments, arguments, "pocketvit profile [RECIPE] [--FIELD VALUE ...]")
    from pocketvit.bench.profile import profile
    from pocketvit.bench.table import profile_table

    print(f"profiling {config.recipe} with batches of {config.batch_size} images …", file=sys.stderr, flush=True)
    print(profile_table(profile(config, given.out)))
    print(f"\nprofile.json, profile.png and trace.json.gz in {given.out}")
    return 0


def _parse(target: type, arguments: list[str], prog: str) -> tuple[Any, RunConfig]:
    """The command's own arguments, and the configuration that the others describe; by default the paper's."""
    given, rest = parse(target, arguments, prog, return_unknown_args=True)
    names_base = rest and not rest[0].startswith("-") or any(flag_of(part) == "--config" for part in rest)
    return given, parse_train(rest if names_base else ["paper", *rest], others=flags_of(target))


def _numbers(flag: str, text: str | None) -> tuple[int, ...] | None:
    """Whole numbers separated by commas."""
    try:
        return None if text is None else tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{flag} {text}: must be whole numbers separated by commas, such as 32,64") from None


def _check_writable(file: Path) -> None:
    """Refuse a file that cannot be written before anything is measured."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror}") from error
