"""`pocketvit explain`: what a model looked at in images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pocketvit.cli.parsing import parse_command
from pocketvit.cli.runs import exit_code, given_files, without_errors
from pocketvit.config import Device
from pocketvit.terminal import NAME, printable, say


@dataclass(frozen=True)
class ExplainArguments:
    """Show what a model looked at in images: a page and a picture of its attention.

    Files that cannot be read are named, and the others are explained. Exit codes: 0 all were explained, 3 some could not be
    read, 2 none could.
    """

    run: tyro.conf.Positional[Path]
    """Run folder, a model.safetensors, or the name of a model that comes with PocketViT."""
    files: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(help_behavior_hint="(at least one)")]
    """Images or folders of them, or -, as for pocketvit predict."""
    out: Path | None = None
    """Folder for explain.html and explain.png; by default the next free explain/RUN-NNN."""
    device: Device = "auto"
    """auto: CUDA if available, else Apple's MPS, else the CPU."""
    allow_code: bool = False
    """Agree to run the user-defined code that the model needs."""


def explain_command(arguments: list[str]) -> int:
    """`pocketvit explain RUN IMAGES... [--out FOLDER]`."""
    parsed = parse_command(ExplainArguments, arguments, "pocketvit explain")
    files = given_files(parsed.files)
    from pocketvit.inference.explain import explain_each
    from pocketvit.report.explanations import Explanation, write_explanations
    from pocketvit.runs.folder import make_next_free

    found, failed = [], set()
    answers = explain_each(parsed.run, files, device=parsed.device, allow_code=parsed.allow_code)
    for answer in without_errors(answers, failed):
        found.append(Explanation(**answer))
        (label, share), *_ = found[-1].best
        print(f"{printable(found[-1].file)}  {printable(label, NAME)} {share:.1%}")
    if found:
        run = parsed.run.parent if parsed.run.is_file() else parsed.run
        name = run.resolve().name
        page, picture = write_explanations(parsed.out or make_next_free(Path("explain"), name), name, found)
        say(f"page: {page}\npicture: {picture}")
    return exit_code(failed)
