"""Arguments to dataclasses, with errors in one line."""

import contextlib
import dataclasses
import io
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import tyro

from pocketvit.config.checks import unknown
from pocketvit.errors import InputError
from pocketvit.files import path_of
from pocketvit.usercode import Code


def parse(target: Callable | type, arguments: list[str], prog: str, **options: Any) -> Any:
    """`tyro.cli`, with what it says of bad arguments as one line.

    Raises:
        InputError: the arguments are refused. Tyro prints a title, a rule, the reason and a rule, wrapped and in a box.
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.cli(target, args=arguments, prog=prog, registry=_registry(), **options)
    except SystemExit as left:
        if not left.code:
            raise  # --help
        lines = [line.strip("│ ") for line in printed.getvalue().splitlines()]
        rules = [i for i, line in enumerate(lines) if line.startswith("╭") or not line.strip("─-")]
        reason = _reason(lines[rules[0] + 1 : rules[1]] if len(rules) > 1 else lines)
        raise InputError(f"{reason} (see {prog.split(' [')[0]} --help)") from None


def parse_command(target: type, arguments: list[str], prog: str) -> Any:
    """The arguments of a command as its dataclass, whose docstrings are the help.

    Raises:
        InputError: as `parse`, or an unknown flag, with the nearest known one.
    """
    arguments = [re.sub(r"^--data\.", "--", argument) for argument in arguments]  # as the messages on data write them
    check_flags(arguments, flags_of(target))
    short_help = (tyro.conf.FlagCreatePairsOff, tyro.conf.PositionalMetavarFromFieldName)
    return parse(target, arguments, prog, config=short_help)


def flags_of(target: type) -> list[str]:
    """The flags of a dataclass."""
    return [f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(target)]


def flag_of(argument: str) -> str:
    """The flag in --FLAG or --FLAG=VALUE, as `flags_of` writes it: tyro takes _ for - as well."""
    return argument.partition("=")[0].replace("_", "-")


def check_flags(arguments: list[str], known: Collection[str]) -> None:
    """Refuse an unknown flag with the nearest known one.

    Raises:
        InputError: there is one.
    """
    for argument in arguments:
        flag = flag_of(argument)
        if flag.startswith("--") and flag not in (*known, "--help"):
            raise InputError(unknown("flag", flag, known))


def _reason(lines: list[str]) -> str:
    """What tyro says of bad arguments, without what it says to programmers."""
    if lines[0].startswith("Missing from "):
        return f"{lines[1]} is missing: {' '.join(lines[2:]).removesuffix(' (required)')}"
    reason = re.sub(r" Got errors: .*", "", " ".join(lines))
    misfit = re.fullmatch(r"Error parsing (\S+): no type matching (.*) could be instantiated from \[(.*)\]\.", reason)
    if misfit:
        flag, forms, given = misfit.groups()
        return f"{flag} takes {_in_words(forms)}, not {given or 'nothing'}"
    number = re.fullmatch(
        r"Error parsing (\S+): (invalid literal for int|could not convert string to float).*?: (.*)", reason
    )
    if number:
        flag, fault, given = number.groups()
        return f"{flag} takes {'a whole number' if 'int' in fault.split() else 'a number'}, not {given}"
    return re.sub(r"^Error parsing (?:(?=-)|\S+: )", "", reason)  # our own messages name the field themselves


def _in_words(forms: str) -> str:
    """What a flag takes, such as "none or two numbers" for tyro's {none}|{FLOAT FLOAT}."""
    words = {"INT": "a whole number", "FLOAT": "a number", "FLOAT FLOAT": "two numbers"}
    plain = (form.strip("{}") for form in forms.split("|"))
    return " or ".join(words.get(form, form) for form in plain)


def _registry() -> tyro.constructors.ConstructorRegistry:
    """Teach tyro to take none in any case, where a field may be none, FILE.py:NAME, where it takes code, and ~ in paths.

    The configuration itself reads and checks the code.
    """
    registry = tyro.constructors.ConstructorRegistry()

    def teach(read: Callable[[str], Any], kind: type, metavar: str, *others: type) -> None:
        """Let `read` make values of a kind, which may also be of the others."""

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
    teach(path_of, Path, "PATH")
    return registry


def _none(word: str) -> None:
    """None, where that is what the word says."""
    if word.lower() != "none":
        raise ValueError(f"{word!r} is not none")
