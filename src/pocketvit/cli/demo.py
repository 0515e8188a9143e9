"""`pocketvit demo`: try a model in the browser."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from pocketvit.cli.parsing import parse_command
from pocketvit.config import Device


@dataclass(frozen=True)
class DemoArguments:
    """Open a page on this machine that classifies an image and shows where the model looks.

    The page is served to this machine only; nothing is sent elsewhere. Ctrl-C ends it.
    """

    run: tyro.conf.Positional[Path | None] = None
    """Run folder, or a model.safetensors; by default cifar10, which comes with PocketViT."""
    port: int | None = None
    """Port of the page; by default the first free one from 7860."""
    device: Device = "auto"
    """auto: CUDA if available, else Apple's MPS, else the CPU."""
    allow_code: bool = False
    """Agree to run the user-defined code that the model needs."""


def demo_command(arguments: list[str]) -> int:
    """`pocketvit demo [RUN] [--port N]`."""
    parsed = parse_command(DemoArguments, arguments, "pocketvit demo")
    from pocketvit.demo import Demo, serve

    serve(Demo(parsed.run, device=parsed.device, allow_code=parsed.allow_code), parsed.port)
    return 0
