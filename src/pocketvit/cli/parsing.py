"""Parse arguments into dataclasses, with errors in one line."""

import dataclasses
import re
from collections.abc import Callable, Collection
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import tyro
from tyro import _errors

from pocketvit.config.checks import unknown
from pocketvit.config.weights import Weights
from pocketvit.errors import InputError
from pocketvit.files import path_of
from pocketvit.usercode import Code

Tracker = Literal["tensorboard", "wandb", "mlflow", "trackio"]
"""The experiment trackers, named like their packages."""

MEANT = {
    "learning-rate base-lr": "--optim.lr",
    "epochs max-epochs num-epochs num-train-epochs": "--schedule.passes",
    "max-time max-train-time time-limit": "--schedule.time-budget",
    "warmup warmup-epochs warmup-ratio warmup-steps": "--schedule.warmup-passes",
    "lr-scheduler sched scheduler": "--schedule.name",
    "opt optimizer": "--optim.name",
    "drop drop-rate hidden-dropout-prob": "--model.dropout",
    "layers num-layers": "--model.depth",
    "dim embed-dim hidden-size": "--model.width",
    "image-size img-size input-size": "--data.resize",
    "data-dir data-path dataset": "--data.source",
    "amp bf16 fp16": "--train.precision",
    "output output-dir save-dir": "--out",
    "checkpoint fine-tune finetune init pretrained": "--init-from",
    "clip-grad clip-grad-norm gradient-clip-val max-grad-norm": "--optim.grad-clip",
    "layer-wise-lr-decay llrd": "--optim.layer-decay",
    "num-workers workers": "images are decoded once and augmented in chunks, without worker processes",
    "early-stopping early-stopping-patience patience": "--train.patience",
    "accum-iter accumulate-grad-batches gradient-accumulation-steps": "--train.micro-batch is how many images of a batch "
    "are computed at a time",
}
"""What others' names of flags, by their last part, mean here: a flag, or what there is instead."""


def parse(target: Callable | type, arguments: list[str], prog: str, **options: Any) -> Any:
    """`tyro.cli`, with its errors in one line.

    Raises:
        InputError: the arguments are refused.
    """

    def refuse(event: _errors.ParseErrorEvent) -> None:
        raise InputError(f"{_reason(event)} (see {prog.split(' [')[0]} --help)")

    with _errors.on_parse_error(refuse):
        return tyro.cli(target, args=arguments, prog=prog, registry=_registry(), **options)


def parse_command(target: type, arguments: list[str], prog: str) -> Any:
    """Parse a command's arguments into its dataclass, whose docstrings are the help.

    Raises:
        InputError: as `parse`, or an unknown flag, with the nearest known one.
    """
    arguments = [re.sub(r"^--data\.", "--", argument) for argument in arguments]  # as in messages about data
    check_flags(arguments, flags_of(target))
    short_help = (tyro.conf.FlagCreatePairsOff, tyro.conf.PositionalMetavarFromFieldName)
    return parse(target, arguments, prog, config=short_help)


def check_tracker(name: str | None) -> None:
    """Raise an `InputError` if an experiment tracker is unknown or not installed; it says what to install."""
    if name is None:
        return
    if name not in (known := get_args(Tracker)):
        raise InputError(f"--track {name}: the trackers are {', '.join(known)}")
    if find_spec(name) is None:
        raise InputError(
            f"--track {name} needs {name}: pip install {name}, or all trackers: pip install 'pocketvit[track]'"
        )


def flags_of(target: type) -> list[str]:
    """The flags of a dataclass."""
    return [f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(target) if field.init]


def flag_of(argument: str) -> str:
    """The flag in --FLAG or --FLAG=VALUE, as in `flags_of`: tyro also accepts _ for -."""
    return argument.partition("=")[0].replace("_", "-")


def check_flags(arguments: list[str], known: Collection[str]) -> None:
    """Raise an `InputError` if a flag is unknown; it names the known one that is meant or that is nearest."""
    for argument in arguments:
        flag = flag_of(argument)
        if flag.startswith("--") and flag not in (*known, "--help"):
            name = flag.lstrip("-").rpartition(".")[2]
            meant = next((meant for names, meant in MEANT.items() if name in names.split()), "")
            if not meant or {*re.findall(r"--[a-z.-]+", meant)} - {*known}:
                raise InputError(unknown("flag", flag, known))
            hint = f"did you mean {meant}?" if meant.startswith("--") else meant
            raise InputError(f"unknown flag {flag!r}; {hint}")


def _reason(event: _errors.ParseErrorEvent) -> str:
    """Why tyro refuses the arguments."""
    if isinstance(event, _errors.UnrecognizedArgs):
        return f"Unrecognized options: {', '.join(event.tokens)}"
    if isinstance(event, _errors.MissingArgs):
        argument = event.missing_arguments[0].arg
        about = argument.field.helptext
        about = " ".join(((about() if callable(about) else about) or "").split())
        return f"{argument.get_invocation_text()[0].as_str_no_ansi()} is missing: {about}"
    message, argument = getattr(event, "message", ""), getattr(event, "argument", None)
    if argument is None:
        return message or type(event).__name__  # our own messages name the field themselves
    given = re.search(r"from \[(.*)\]\.|(?:int\(\) .*|to float): (.*)|$", message)
    assert given is not None  # it also matches nothing, at the end
    if message and not given[0]:
        return f"{argument.display_name()}: {message}"
    value = repr(event.value) if isinstance(event, _errors.InvalidChoice) else given[1] or given[2] or "nothing"
    return f"{argument.display_name()} takes {_in_words(argument.lowered.metavar)}, not {value}"


def _in_words(forms: str) -> str:
    """The values of a flag in words, such as "none or two numbers" for tyro's {none}|{FLOAT FLOAT}."""
    words = {
        "INT": "a whole number",
        "FLOAT": "a number",
        "FLOAT FLOAT": "two numbers",
        "INT INT": "two whole numbers",
        "PATH": "a path",
        "STR": "text",
    }
    *most, last = (words.get(form, form) for form in re.sub(r"[{}]", "", forms).replace("|", ",").split(","))
    return f"{', '.join(most)} or {last}" if most else last


def _registry() -> tyro.constructors.ConstructorRegistry:
    """Rules for tyro: none in any case, FILE.py:NAME for code and paths of models (read by the config), ~ in paths."""
    registry = tyro.constructors.ConstructorRegistry()

    def teach(read: Callable[[str], Any], kind: type, metavar: str, *others: type) -> None:
        """Read values of a type by `read`; they may also be of the other types."""

        @registry.primitive_rule
        def rule(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec | None:
            if info.type is not kind:
                return None
            return tyro.constructors.PrimitiveConstructorSpec(
                nargs=1,
                metavar=metavar,
                instance_from_str=lambda words: read(words[0]),
                is_instance=lambda value: isinstance(value, (kind, *others)),
                str_from_instance=lambda value: ["none" if value is None else str(value)],
            )

    teach(_none, type(None), "{none}")
    teach(str, Code, "FILE.py:NAME", str)
    teach(str, Weights, "PATH", str)
    teach(path_of, Path, "PATH")
    return registry


def _none(word: str) -> None:
    """None, if the word is none in any case."""
    if word.lower() != "none":
        raise ValueError(f"{word!r} is not none")
