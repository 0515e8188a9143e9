"""`pocketvit eval`, `predict` and `report`: commands on finished runs."""

import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import tyro

from pocketvit.cli.parsing import parse_command
from pocketvit.config import Device
from pocketvit.config.checks import Bounds
from pocketvit.config.shipped import find_run
from pocketvit.errors import InputError
from pocketvit.files import MOST_BYTES
from pocketvit.runs.balance import balance_lines
from pocketvit.terminal import NAME, aligned, printable, say


@dataclass(frozen=True)
class EvalArguments:
    """Measure the accuracy of a finished run, or of a model that comes with PocketViT."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    data: str | None = None
    """Another data set with the same classes; all its images if it has no test split. By default the run's own."""
    resize: int | None = None
    """Resize every image to a square of this many pixels a side; by default as in the run. Also --data.resize."""
    json: bool = False
    """Print JSON instead of a table."""
    csv: bool = False
    """Print a line of CSV for each image: file, label, prediction and its probability; of several classes that of each."""
    device: Device = "auto"
    """auto: CUDA if available, else Apple's MPS, else the CPU."""
    allow_code: bool = False
    """Agree to run the user-defined code that the run's model needs."""


def eval_command(arguments: list[str]) -> int:
    """`pocketvit eval RUN [--data SOURCE] [--json | --csv]`."""
    parsed = parse_command(EvalArguments, arguments, "pocketvit eval")
    if parsed.json and parsed.csv:
        raise InputError("give only one of --json and --csv")
    from pocketvit.inference.evaluate import evaluate_images, evaluate_run

    options = {"resize": parsed.resize, "device": parsed.device, "allow_code": parsed.allow_code}
    if parsed.csv:
        _print_csv(evaluate_images(parsed.run, source=parsed.data, **options))
        return 0
    scores = evaluate_run(parsed.run, source=parsed.data, **options)
    if parsed.json:
        print_json(scores)
        return 0
    for note in scores["notes"]:
        print(printable(note))
    exact = f"{scores['accuracy']:.2%} of the {scores['images']:,} images have exactly their classes at 50 % or more"
    if mean := scores.get("map"):
        lines = [f"test mAP {mean:.2%}, the mean over classes of average precision", exact]
    else:
        lines = [f"test accuracy {scores['accuracy']:.2%} on {scores['images']:,} images", *balance_lines(scores)]
    say("\n".join(lines))
    names = aligned([printable(name, NAME) for name in scores["per_class"]], 16)
    for name, value in zip(names, scores["per_class"].values(), strict=True):
        print(f"  {name}{value:7.2%}")
    return 0


SOME_FAILED = 3  # exit code: some files could not be read, the others were classified


@dataclass(frozen=True)
class PredictArguments:
    """Predict class probabilities of image files.

    Files that cannot be read are named, and the others are classified. Exit codes: 0 all were classified, 3 some could not
    be read, 2 none could.
    """

    files: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(help_behavior_hint="(at least one)")]
    """The run, unless --run names it; then images, such as PNG, JPEG or WebP, or folders of them; - reads an image, or names of
    files, one a line, from standard input. Images are resized to the model's size."""
    run: Path | None = None
    """Run folder, a model.safetensors, or the name of a model that comes with PocketViT."""
    json: bool = False
    """Print JSON instead of a table."""
    jsonl: bool = False
    """Print a line of JSON for each image."""
    csv: bool = False
    """Print a line of CSV for each image: file, prediction and its probability; of several classes that of each."""
    top: int = 3
    """Number of classes to show per image in the table."""
    device: Device = "auto"
    """auto: CUDA if available, else Apple's MPS, else the CPU."""
    allow_code: bool = False
    """Agree to run the user-defined code that the model needs."""


def predict_command(arguments: list[str]) -> int:
    """`pocketvit predict RUN FILES... [--json | --jsonl | --csv]`."""
    parsed = parse_command(PredictArguments, arguments, "pocketvit predict")
    if parsed.json + parsed.jsonl + parsed.csv > 1:
        raise InputError("give only one of --json, --jsonl and --csv")
    Bounds(1).check("--top", parsed.top)
    run, given = parsed.run, parsed.files
    if run is None:
        run, *given = given or [Path("IMAGE")]
        is_model = run.suffix == ".safetensors" or (find_run(run) / "model.safetensors").exists()
        if not given and not is_model:
            raise InputError(
                "the model is missing; before the images, give a run folder, a model.safetensors, or the name of a model that "
                f"comes with PocketViT: pocketvit predict cifar10 {printable(run, NAME)}"
            )
    files = given_files(given)
    from pocketvit.inference.evaluate import predict_each

    failed: set[bool] = set()
    answers = predict_each(run, files, device=parsed.device, allow_code=parsed.allow_code)
    _show(without_errors(answers, failed), parsed)
    return exit_code(failed)


def without_errors(answers: Iterable[dict[str, Any]], failed: set[bool]) -> Iterator[dict[str, Any]]:
    """Answers on files, but for errors, which are printed.

    Args:
        failed: gets whether each answer was an error, for `exit_code`.
    """
    for answer in answers:
        failed.add("error" in answer)
        if "error" in answer:
            print(printable(f"pocketvit: {answer['error']}"), file=sys.stderr)
        else:
            yield answer


def exit_code(failed: set[bool]) -> int:
    """The exit code of a command on files, after `without_errors`."""
    return 0 if True not in failed else SOME_FAILED if False in failed else 2


def given_files(files: Sequence[Path]) -> list[bytes | Path]:
    """The files on a command line, where - stands for standard input.

    Raises:
        InputError: there is none, or standard input holds too much.
    """
    given = [each for file in files for each in (_from_stdin() if str(file) == "-" else [file])]
    if not given:
        raise InputError("give at least one image file")
    return given


def _from_stdin() -> list[bytes | Path]:
    """An image on standard input, or the files that are named there; every image has a zero byte, no name does."""
    content = sys.stdin.buffer.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise InputError(f"-: standard input holds more than {MOST_BYTES:,} bytes")
    return [content] if b"\0" in content else [Path(os.fsdecode(line)) for line in content.splitlines() if line]


def _show(answers: Iterator[dict[str, Any]], parsed: PredictArguments) -> None:
    """Print predictions in the form asked for; lines of JSON and CSV as they come."""
    if parsed.json:
        print_json(list(answers))
    elif parsed.jsonl:
        for answer in answers:
            print_json(answer, indent=None)
    elif parsed.csv:
        _print_csv(answers)
    else:
        shown = list(answers)
        for name, answer in zip(aligned([printable(answer["file"]) for answer in shown]), shown, strict=True):
            best = sorted(answer["probabilities"].items(), key=lambda item: -item[1])[: parsed.top]
            print(f"{name}  " + "  ".join(f"{printable(label, NAME)} {share:.1%}" for label, share in best))


def _print_csv(answers: Iterator[dict[str, Any]]) -> None:
    """A line for each answer, perhaps with its label; where an image may have several classes, with all probabilities."""
    table, first = csv.writer(sys.stdout, lineterminator="\n"), next(answers, {})
    several = "classes" in first
    given = ["file", "label"] if "label" in first else ["file"]
    shares = [f"p({name})" for name in first["probabilities"]] if several else ["probability"]
    table.writerow(map(_cell, [*given, "prediction", *shares]))
    for answer in chain([first] if first else [], answers):
        named = answer["probabilities"]
        best = max(named, key=lambda name: named[name])
        prediction, values = ("|".join(answer["classes"]), named.values()) if several else (best, [named[best]])
        texts = [*(answer[name] for name in given), prediction]
        table.writerow([*map(_cell, texts), *(round(share, 4) for share in values)])


def _cell(text: str) -> str:
    """Text of a CSV table, with the letters escaped that a terminal would obey."""
    return printable(text, 10 * len(text))


def print_json(content: Any, indent: int | None = 2) -> None:
    """Print JSON, without escaping non-ASCII letters unless a terminal would obey one."""
    text = json.dumps(content, indent=indent, ensure_ascii=False)
    clean = all(printable(line, len(line)) == line for line in text.split("\n"))
    print(text if clean else json.dumps(content, indent=indent))


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
