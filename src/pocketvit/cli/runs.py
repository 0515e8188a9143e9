"""`pocketvit eval`, `predict` and `report`: commands on finished runs."""

import csv
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from pocketvit.cli.parsing import parse_command
from pocketvit.config import Device
from pocketvit.config.checks import Bounds
from pocketvit.errors import InputError
from pocketvit.runs.balance import balance_lines
from pocketvit.terminal import NAME, printable, say


@dataclass(frozen=True)
class EvalArguments:
    """Measure the accuracy of a finished run."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    data: str | None = None
    """Another data set with the same classes; all its images if it has no test split. By default the run's own."""
    resize: int | None = None
    """Resize every image to a square of this many pixels a side; by default as in the run. Also --data.resize."""
    json: bool = False
    """Print JSON instead of a table."""
    csv: bool = False
    """Print a line for each image instead, as CSV: file, label, prediction and its probability."""
    device: Device = "auto"
    """auto: CUDA if available, else Apple's MPS, else the CPU."""
    allow_code: bool = False
    """Agree to run the user-defined code that the run's model needs."""


def eval_command(arguments: list[str]) -> int:
    """`pocketvit eval RUN [--data SOURCE] [--json | --csv]`."""
    parsed = parse_command(EvalArguments, arguments, "pocketvit eval")
    from pocketvit.inference.evaluate import evaluate_images, evaluate_run

    options = {"resize": parsed.resize, "device": parsed.device, "allow_code": parsed.allow_code}
    if parsed.csv:
        rows = list(evaluate_images(parsed.run, source=parsed.data, **options))
        table = csv.DictWriter(sys.stdout, rows[0], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        return 0
    scores = evaluate_run(parsed.run, source=parsed.data, **options)
    if parsed.json:
        _print_json(scores)
        return 0
    for note in scores["notes"]:
        say(note)
    lines = [f"test accuracy {scores['accuracy']:.2%} on {scores['images']:,} images", *balance_lines(scores)]
    say("\n".join(lines))
    for name, value in scores["per_class"].items():
        print(f"  {printable(name, NAME):<16}{value:7.2%}")
    return 0


@dataclass(frozen=True)
class PredictArguments:
    """Predict class probabilities of image files."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(help_behavior_hint="(at least one)")]
    """Images, such as PNG, JPEG or WebP; they are resized to the model's size."""
    run: Path
    """Run folder, or a model.safetensors."""
    json: bool = False
    """Print JSON instead of a table."""
    top: int = 3
    """Number of classes to show per image in the table."""
    device: Device = "auto"
    """auto: CUDA if available, else Apple's MPS, else the CPU."""
    allow_code: bool = False
    """Agree to run the user-defined code that the model needs."""


def predict_command(arguments: list[str]) -> int:
    """`pocketvit predict FILES... --run RUN [--json]`."""
    parsed = parse_command(PredictArguments, arguments, "pocketvit predict")
    if not parsed.files:
        raise InputError("give at least one image file")
    Bounds(1).check("--top", parsed.top)
    for file in parsed.files:
        if file.is_dir():
            raise InputError(f"{file} is a folder; for the images in it write {file}/*")
    from pocketvit.inference.evaluate import predict_files

    predictions = predict_files(parsed.run, parsed.files, device=parsed.device, allow_code=parsed.allow_code)
    if parsed.json:
        _print_json(predictions)
        return 0
    names = [printable(entry["file"]) for entry in predictions]
    for entry, name in zip(predictions, names, strict=True):
        best = sorted(entry["probabilities"].items(), key=lambda item: -item[1])[: parsed.top]
        shares = "  ".join(f"{printable(label, NAME)} {p:.1%}" for label, p in best)
        print(f"{name:<{max(map(len, names))}}  {shares}")
    return 0


def _print_json(content: Any) -> None:
    """Print JSON, without escaping non-ASCII letters unless a terminal would obey one."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    clean = all(printable(line, len(line)) == line for line in text.split("\n"))
    print(text if clean else json.dumps(content, indent=2))


@dataclass(frozen=True)
class ReportArguments:
    """Make a run's report.html again."""

    run: tyro.conf.Positional[Path]
    """Run folder."""


def report_command(arguments: list[str]) -> int:
    """`pocketvit report RUN`."""
    parsed = parse_command(ReportArguments, arguments, "pocketvit report")
    from pocketvit.report.page import write_report

    say(write_report(parsed.run))
    return 0
