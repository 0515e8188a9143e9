"""`pocketvit export`: a trained model for other programs."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from pocketvit.cli.parsing import parse_command
from pocketvit.inference.export import Format
from pocketvit.terminal import say


@dataclass(frozen=True)
class ExportArguments:
    """Write a trained model for other programs, with a model card that shows how to use it."""

    run: tyro.conf.Positional[Path]
    """Run folder, a model.safetensors, or the name of a model that comes with PocketViT."""
    format: Format
    """onnx or torchscript: one file from uint8 images to probabilities; timm or hf: for timm's VisionTransformer or
    transformers' ViTForImageClassification; safetensors: for PocketViT."""
    out: Path | None = None
    """New or empty folder; by default the next free export/RUN-FORMAT-NNN."""
    license: str | None = None
    """License of the weights, for the card, by the Hugging Face Hub's short name, such as mit; by default none is stated."""
    push: str | None = None
    """Also upload the folder to the Hugging Face Hub as this model, OWNER/NAME."""
    private: bool = False
    """With --push, make a new model private."""
    allow_code: bool = False
    """Agree to run the user-defined code that the model needs."""


def export_command(arguments: list[str]) -> int:
    """`pocketvit export RUN --format FORMAT [--out FOLDER] [--push OWNER/NAME]`."""
    parsed = parse_command(ExportArguments, arguments, "pocketvit export")
    from pocketvit.inference.export.folder import check_free, package, write_files
    from pocketvit.inference.export.hub import check_push, push
    from pocketvit.inference.trained_model import load_model
    from pocketvit.runs.folder import make_next_free

    if parsed.push is not None:
        check_push(parsed.push)
    if parsed.out is not None:
        check_free(parsed.out)
    trained = load_model(parsed.run, allow_code=parsed.allow_code)
    files = package(trained, parsed.format, license=parsed.license)
    run = parsed.run.parent if parsed.run.is_file() else parsed.run
    out = parsed.out or make_next_free(Path("export"), f"{run.resolve().name}-{parsed.format}")
    write_files(out, files)
    for name in sorted(files):
        say(f"{out / name}  {len(files[name]):,} bytes")
    if parsed.push is not None:
        say(f"pushed: {push(out, parsed.push, private=parsed.private)}")
    return 0
