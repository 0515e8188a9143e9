"""Arguments to dataclasses, with errors in one line."""

import contextlib
import io
import re
from collections.abc import Callable
from typing import Any

import tyro

from pocketvit.errors import InputError
from pocketvit.usercode import Code


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


def code_registry() -> tyro.constructors.ConstructorRegistry:
    """Teach tyro to take FILE.py:NAME where a field takes code; the configuration itself reads and checks it."""
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def rule(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec | None:
        if info.type is not Code:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="FILE.py:NAME",
            instance_from_str=lambda words: words[0],
            is_instance=lambda value: isinstance(value, Code | str),
            str_from_instance=lambda code: [str(code)],
        )

    return registry
