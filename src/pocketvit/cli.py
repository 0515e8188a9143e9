"""The command line: each sub-command parses, calls one function of the package and prints what it returns.

Nothing here imports torch before a command needs it, so that `--help` answers at once.
"""

import contextlib
import io
import re
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from pocketvit.errors import InputError

USAGE = """\
usage: pocketvit COMMAND [ARGUMENTS]

Train small vision transformers from scratch on small images.

  train [RECIPE]        train a model; RECIPE is {recipes} (default digits)
  eval RUN              accuracy of a finished run on its test images, or on --data
  predict FILES...      class probabilities of image files, by --run RUN
  report RUN            make a run's report.html again
  data list             the data sets known by name
  data get NAME         download one
  data check SOURCE     what a data set holds, and whether it is the real CIFAR-10

Any field of a run can be set by its dotted name: pocketvit train paper --optim.lr 2e-3 --model.num-cls-tokens 2
`pocketvit COMMAND --help` explains a command.
"""

SHORT_FORMS = {"--data": "--data.source"}
"""Flags of `train` that stand for a longer one; --seed, --out and --batch-size are fields themselves."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 2 bad input, 130 or 143 stopped by a signal and saved."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        sys.exit(dispatch(arguments))
    except InputError as error:
        print(f"pocketvit: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output left: nobody to tell
        sys.exit(0)


def dispatch(arguments: list[str]) -> int:
    """Find the command and run it.

    Raises:
        InputError: no such command, or the command's own.
    """
    from pocketvit.checks import unknown

    if not arguments or arguments[0] in ("-h", "--help", "help"):
        from pocketvit.recipes import RECIPES

        print(USAGE.format(recipes=" or ".join(RECIPES)), end="")
        return 0
    if arguments[0] == "--version":
        from pocketvit import __version__

        print(f"pocketvit {__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name == "data" and rest and not rest[0].startswith("-"):
        name, rest = f"data {rest[0]}", rest[1:]
    elif name == "data":
        name, rest = "data list", rest
    if name not in COMMANDS:
        raise InputError(unknown("command", name, COMMANDS))
    return COMMANDS[name](rest)


def parse(target: Callable | type, arguments: list[str], prog: str, **options: Any) -> Any:
    """`tyro.cli`, with what it says of bad arguments as one line.

    Raises:
        InputError: the arguments are refused. Tyro prints a title, a rule, the reason and a rule, wrapped and in a box.
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.cli(target, args=arguments, prog=prog, **options)
    except SystemExit as left:
        if not left.code:
            raise  # --help
        lines = [line.strip("│ ") for line in printed.getvalue().splitlines()]
        rules = [i for i, line in enumerate(lines) if line.startswith("╭") or not line.strip("─-")]
        reason = " ".join(lines[rules[0] + 1 : rules[1]]) if len(rules) > 1 else " ".join(lines)
        reason = re.sub(r"^Error parsing (?!-)\S+: ", "", reason)  # our own messages name the field themselves
        raise InputError(f"{reason} (see {prog.split(' [')[0]} --help)") from None


# ---------------------------------------------------------------- train


def train_command(arguments: list[str]) -> int:
    """`pocketvit train [RECIPE] [--FIELD VALUE ...] [--config FILE.yaml | --resume DIR]`."""
    config = parse_train(arguments)
    from rich.console import Console

    from pocketvit.training import Stopped, train
    from pocketvit.training.progress import reporter

    console = Console()
    try:
        result = train(config, reporter(console))
    except Stopped as stopped:
        print(stopped)
        return 128 + stopped.signum
    print(result_text(result))
    return 0


def parse_train(arguments: list[str]) -> "RunConfig":  # noqa: F821 (imported late)
    """The configuration that the arguments of `train` describe.

    Raises:
        InputError: an unknown recipe or field, a wrong value, or two bases at once.
    """
    from dataclasses import replace

    from pocketvit.config import RunConfig, load_config
    from pocketvit.recipes import recipe

    rest = [_long_form(argument) for argument in arguments]
    named = rest.pop(0) if rest and not rest[0].startswith("-") else None
    saved, rest = _take(rest, "--config")
    resumed, rest = _take(rest, "--resume")
    if sum(base is not None for base in (named, saved, resumed)) > 1:
        raise InputError("give one of RECIPE, --config FILE.yaml and --resume DIR")
    if resumed is not None:
        if rest:
            raise InputError(f"--resume goes on with the saved config and takes no other flags, such as {rest[0]}")
        return replace(load_config(Path(resumed) / "config.yaml"), out=Path(resumed))
    base = recipe(named or "digits")
    if saved is not None:
        base = replace(load_config(Path(saved)), out=None)
    _check_flags(rest, base)
    return parse(
        RunConfig,
        rest,
        "pocketvit train [RECIPE | --config FILE.yaml | --resume DIR]",
        default=base,
        description="Train a model. Defaults below are those of the chosen recipe.",
        config=(tyro.conf.FlagConversionOff,),
    )


def _long_form(argument: str) -> str:
    flag, equals, value = argument.partition("=")
    return SHORT_FORMS.get(flag, flag) + equals + value


def _take(arguments: list[str], flag: str) -> tuple[str | None, list[str]]:
    """The value of a flag, given as --flag VALUE or --flag=VALUE, and the arguments without it."""
    for i, argument in enumerate(arguments):
        if argument == flag:
            if i + 1 == len(arguments):
                raise InputError(f"{flag} needs a value")
            return arguments[i + 1], arguments[:i] + arguments[i + 2 :]
        if argument.startswith(flag + "="):
            return argument.removeprefix(flag + "="), arguments[:i] + arguments[i + 1 :]
    return None, arguments


def _check_flags(arguments: list[str], base: "RunConfig") -> None:  # noqa: F821 (imported late)
    """Refuse an unknown flag with the nearest known one."""
    from pocketvit.checks import unknown
    from pocketvit.config import flatten

    known = [f"--{name.replace('_', '-')}" for name in flatten(base)]
    for argument in arguments:
        flag = argument.partition("=")[0].replace("_", "-")
        if flag.startswith("--") and flag not in (*known, "--help"):
            raise InputError(unknown("flag", flag, known))


def result_text(result: dict) -> str:
    """A finished run in two lines."""
    accuracy = f"test accuracy {result['test_accuracy']:.2%} after the last step"
    if result["val_accuracy"] is not None:
        accuracy += f" (validation {result['val_accuracy']:.2%})"
    elif result["best_test_accuracy"] is not None:
        accuracy += f" (best of {len(result['curve'])} looks at the test set: {result['best_test_accuracy']:.2%})"
    seconds, speed = result["train_s"], result["images_per_s"]
    return f"{accuracy}\ntrained {seconds:.1f} s at {speed:,.0f} images/s on {result['device']}"


# ---------------------------------------------------------------- eval, predict, report


@dataclass(frozen=True)
class EvalArguments:
    """Accuracy of a finished run."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    data: str | None = None
    """Another data set with the same classes; by default the run's own."""
    device: str = "auto"
    """cuda, mps, cpu or auto."""


def eval_command(arguments: list[str]) -> int:
    """`pocketvit eval RUN [--data SOURCE]`."""
    parsed = parse(EvalArguments, arguments, "pocketvit eval")
    from pocketvit.training import evaluate_run

    scores = evaluate_run(parsed.run, source=parsed.data, device=parsed.device)
    print(f"test accuracy {scores['accuracy']:.2%} on {scores['images']:,} images")
    for name, value in scores["per_class"].items():
        print(f"  {name:<16}{value:7.2%}")
    return 0


@dataclass(frozen=True)
class PredictArguments:
    """Class probabilities of image files."""

    files: tyro.conf.Positional[tuple[Path, ...]]
    """Images, in any format that Pillow reads; they are resized to the model's size."""
    run: Path
    """Run folder, or a model.safetensors."""
    json: bool = False
    """Print JSON instead of a table."""
    top: int = 3
    """Classes to show for each image in the table."""
    device: str = "auto"
    """cuda, mps, cpu or auto."""


def predict_command(arguments: list[str]) -> int:
    """`pocketvit predict FILES... --run RUN [--json]`."""
    parsed = parse(PredictArguments, arguments, "pocketvit predict")
    if not parsed.files:
        raise InputError("give at least one image file")
    from pocketvit.training import predict_files

    predictions = predict_files(parsed.run, parsed.files, device=parsed.device)
    if parsed.json:
        import json

        print(json.dumps(predictions, indent=2))
        return 0
    width = max(len(entry["file"]) for entry in predictions)
    for entry in predictions:
        best = sorted(entry["probabilities"].items(), key=lambda item: -item[1])[: parsed.top]
        print(f"{entry['file']:<{width}}  " + "  ".join(f"{name} {p:.1%}" for name, p in best))
    return 0


@dataclass(frozen=True)
class ReportArguments:
    """Make a run's report.html again."""

    run: tyro.conf.Positional[Path]
    """Run folder."""


def report_command(arguments: list[str]) -> int:
    """`pocketvit report RUN`."""
    parsed = parse(ReportArguments, arguments, "pocketvit report")
    from pocketvit.report import write_report

    print(write_report(parsed.run))
    return 0


# ---------------------------------------------------------------- data


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


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": train_command,
    "eval": eval_command,
    "predict": predict_command,
    "report": report_command,
    "data list": data_list_command,
    "data get": data_get_command,
    "data check": data_check_command,
}
