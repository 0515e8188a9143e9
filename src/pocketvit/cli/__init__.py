"""The command line: each command parses its arguments, calls one function of the package and prints the result.

torch is imported only when a command needs it, so that `--help` is fast.
"""

import signal
import sys
from collections.abc import Callable, Sequence

from pocketvit.cli.bench import bench_command, profile_command
from pocketvit.cli.data import data_check_command, data_get_command, data_list_command
from pocketvit.cli.demo import demo_command
from pocketvit.cli.doctor import doctor_command
from pocketvit.cli.explain import explain_command
from pocketvit.cli.export import export_command
from pocketvit.cli.many_runs import compare_command, runs_command
from pocketvit.cli.runs import eval_command, predict_command, report_command
from pocketvit.cli.study import study_command
from pocketvit.cli.train import parse_train, train_command
from pocketvit.config.checks import unknown
from pocketvit.errors import InputError
from pocketvit.process import collect_less
from pocketvit.recipes import NAMES
from pocketvit.terminal import forsake, printable, say, tolerate_any_encoding

__all__ = ["COMMANDS", "dispatch", "main", "parse_train"]

TABLE: tuple[tuple[str, str, str, Callable[[list[str]], int]], ...] = (
    ("train", "[RECIPE]", f"train a model; RECIPE is {NAMES} (default digits)", train_command),
    ("doctor", "[RECIPE]", "check in under a minute whether a run would work, and what to change", doctor_command),
    ("eval", "RUN", "measure a finished run's accuracy on its test images, or on --data", eval_command),
    ("predict", "RUN FILES...", "predict class probabilities of image files", predict_command),
    ("explain", "RUN FILES...", "show what a model looked at in images: attention maps", explain_command),
    (
        "export",
        "RUN --format F",
        "write a trained model for other programs: onnx, torchscript, timm, hf",
        export_command,
    ),
    ("demo", "[RUN]", "try a model in the browser: probabilities, and where it looks", demo_command),
    ("report", "RUN", "make a run's report.html again", report_command),
    ("runs", "[FOLDER]", "list the runs in a folder, finished or not (default runs)", runs_command),
    ("compare", "RUN RUN...", "compare finished runs on a page, with McNemar's test", compare_command),
    ("study", "FILE|NAME", "train every row of a study with several seeds, and compare the rows", study_command),
    ("bench", "[RECIPE]", "measure images/s and memory by batch size on this machine", bench_command),
    ("profile", "[RECIPE]", "break down a training step into phases and kernels", profile_command),
    ("data list", "", "list the known data sets", data_list_command),
    ("data get", "NAME", "download a data set", data_get_command),
    ("data check", "SOURCE", "show what a data set contains, and whether it is the real CIFAR-10", data_check_command),
)
"""Every command: its name, arguments, line in the help, and function."""

COMMANDS = {name: command for name, _, _, command in TABLE}

_LINES = "\n".join(f"  {name + ' ' + arguments:<20}  {about}" for name, arguments, about, _ in TABLE)

USAGE = f"""\
usage: pocketvit COMMAND [ARGUMENTS]

Train small vision transformers from scratch on small images.

{_LINES}

Any field of a run can be set by its dotted name: pocketvit train paper --optim.lr 2e-3 --model.num-cls-tokens 2
For help on a command: pocketvit COMMAND --help
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 2 bad input, 130 or 143 stopped by a signal and saved."""
    tolerate_any_encoding()
    collect_less()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = dispatch(arguments)
        sys.stdout.flush()  # so that a full disk is reported
        sys.exit(code)
    except InputError as error:
        for i, line in enumerate(error.lines):
            print(printable(line if i else f"pocketvit: {line}"), file=sys.stderr)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "DefaultCPUAllocator" not in str(error):  # in PyTorch's message
            raise
        print("pocketvit: out of memory; use a smaller model, smaller batches or smaller images", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output is gone
        sys.exit(0)
    except OSError as error:
        say(f"pocketvit: cannot use {error.filename or 'a file'}: {error.strerror or error}", sys.stderr)
        forsake(sys.stdout)
        sys.exit(2)


def dispatch(arguments: list[str]) -> int:
    """Run a command.

    Raises:
        InputError: no such command, or raised by the command.
    """
    asks_for_help = {"-h", "--help", "help"}
    if arguments[:1] == ["help"] and arguments[1:]:
        arguments = [*arguments[1:], "--help"]
    if not arguments or arguments[0] in asks_for_help:
        print(USAGE, end="")
        return 0
    if arguments[0] == "data" and asks_for_help & {*arguments[1:2]}:
        lines = "\n".join(line for line in _LINES.split("\n") if line.startswith("  data"))
        print(f"usage: pocketvit data COMMAND [ARGUMENTS]\n\n{lines}\n\nFor help on one: pocketvit data COMMAND --help")
        return 0
    if arguments[0] == "--version":
        from pocketvit import __version__

        print(f"pocketvit {__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name == "data" and rest and not rest[0].startswith("-"):
        name, rest = f"data {rest[0]}", rest[1:]
    elif name == "data":
        name = "data list"
    if name not in COMMANDS:
        raise InputError(unknown("command", name, COMMANDS))
    return COMMANDS[name](rest)
