"""User-defined code in a run: `FILE.py:NAME` instead of the name of a built-in part.

    read    `Code.read` reads the file's content into the configuration; nothing runs
    allow   a file (a config, a run folder, a study) may name code only with consent: `resolve`
    copy    `save_copies` copies the file to code/ next to the file that refers to it
    run     `Code.call` makes a module of the content, and calls NAME in it

The content is read once and kept. So what is hashed, copied and run is the same even if the file changes meanwhile.
Code is identified by its content: a moved file is the same code, a changed one is not.
"""

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from pocketvit.errors import InputError
from pocketvit.files import digest_of, path_of, read_bytes, write_atomically

FOLDER = "code"  # the folder of copies, next to the file that refers to them

REFERENCE = re.compile(r"(?P<file>[^\x00-\x1f\x7f]+\.py):(?P<name>[A-Za-z_]\w*)(?:@(?P<digest>[0-9a-f]{16}))?")
"""FILE.py:NAME and, in run folders, the digest that the file must have."""


class Code:
    """A class or function in a Python file. Two are equal if their name and the file's whole content are."""

    def __init__(self, path: Path, name: str, source: bytes) -> None:
        self.path, self.name, self.source = path, name, source

    @classmethod
    def read(cls, reference: str, folder: Path = Path()) -> "Code":
        """Read the file of a reference, without running it; a relative path is relative to `folder`.

        Raises:
            InputError: not a reference, no such file, or a file with another digest than the reference.
        """
        parts = REFERENCE.fullmatch(reference)
        if parts is None:
            raise InputError(f"{reference!r} is not of the form FILE.py:NAME")
        path = Path(os.path.abspath(folder / path_of(parts["file"])))
        try:
            code = cls(path, parts["name"], read_bytes(path))
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from error
        if parts["digest"] not in (None, code.digest):
            raise InputError(
                f"{path} has changed: its SHA-256 begins with {code.digest}, expected {parts['digest']}; restore the "
                "original file"
            )
        return code

    @cached_property
    def digest(self) -> str:
        """The first 16 hex digits of the content's SHA-256."""
        return digest_of(self.source)

    @property
    def identity(self) -> str:
        """What is hashed in a configuration: the name and the content, not the path."""
        return f"{self.name}@{self.digest}"

    @property
    def copied(self) -> str:
        """The reference to the copy, for a file next to the folder of copies."""
        return f"{FOLDER}/{self.path.name}:{self.identity}"

    def found_in(self, path: Path) -> bool:
        """Whether a file has the same content."""
        with contextlib.suppress(OSError):
            return read_bytes(path) == self.source
        return False

    def __str__(self) -> str:
        return f"{self.path}:{self.name}"

    def __repr__(self) -> str:
        return f"Code({self})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Code) and (self.name, self.source) == (other.name, other.source)

    def __hash__(self) -> int:
        return hash((self.name, self.source))

    def load(self) -> Callable:
        """The class or function; the file runs on first use.

        Raises:
            InputError: the file fails, or has nothing callable of that name.
        """
        module = self.guard(lambda: _module(self), "fails when it is loaded")
        found = getattr(module, self.name, None)
        if not callable(found):
            has = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
            raise InputError(f"{self.path} has no class or function {self.name}; it has {', '.join(has) or 'none'}")
        return found

    def call(self, **arguments: Any) -> Any:
        """Call the class or function with positional arguments.

        Raises:
            InputError: it cannot be loaded, or fails with these arguments.
        """
        found = self.load()
        return self.guard(lambda: found(*arguments.values()), f"fails when called with ({', '.join(arguments)})")

    def guard(self, action: Callable[[], Any], fails: str) -> Any:
        """Return the result of `action`, which runs user-defined code.

        Args:
            action: uses the code.
            fails: what was tried, for the message after the name of the code.
        Raises:
            InputError: it raised an exception; the message says which, and the line of the user's file.
        """
        try:
            return action()
        except Exception as error:  # whatever the user's code raises
            line = self.line_of(error)
            where = f" (line {line})" if line else ""
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise InputError(f"{self} {fails}: {reason}{where}") from error

    def line_of(self, error: BaseException) -> int | None:
        """The line of the file that an error came from; None if it did not pass through the file."""
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(self.path)]
        return lines[-1] if lines else None


def _module(code: Code) -> ModuleType:
    """The file as a module, run once per path and content; its name is unique."""
    name = f"pocketvit_usercode_{digest_of(str(code.path).encode() + code.source)}"
    if name not in sys.modules:
        # Before it runs, because dataclasses and pickle look up a class's module.
        sys.modules[name] = module = ModuleType(name)
        module.__file__ = str(code.path)
        try:
            exec(compile(code.source, module.__file__, "exec", dont_inherit=True), vars(module))  # noqa: S102 (after consent)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


# ---------------------------------------------------------------- code that files name


def resolve(content: Any, *, fields: Collection[str], folder: Path, where: str, allow_code: bool, inside: bool) -> Any:
    """Read the code that the content of a file names; nothing runs.

    Args:
        content: mappings, at any depth, with dotted names of fields and their values or lists of values.
        fields: the dotted names of those that take code (`pocketvit.config.code_fields`).
        folder: of relative paths.
        where: name of the file in messages.
        allow_code: whether the caller agrees to run the code.
        inside: whether code outside of `folder` is always refused.
    Returns:
        a copy with `Code` instead of references.
    Raises:
        InputError: it names code without consent (the message says what would run), or the code cannot be read.
    """
    named: list[str] = []

    def look(field: str, parts: re.Match[str]) -> None:
        path = Path(os.path.abspath(folder / path_of(parts["file"])))
        if inside and not path.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{where}: {field}={parts[0]} is outside of {folder}; only copies in it are run")
        named.append(f"{field} is {parts['name']} in {path}")

    def read(field: str, parts: re.Match[str]) -> Code:
        try:
            return Code.read(parts[0], folder)
        except InputError as error:
            raise InputError(f"{where}: {field}: {error}") from error

    _replace(content, fields, look)
    if named and not allow_code:
        raise InputError(
            f"{where} would run user-defined code: {', '.join(named)}; read it, then allow it with --allow-code "
            "(in Python allow_code=True)"
        )
    return _replace(content, fields, read)


def _replace(content: Any, fields: Collection[str], act: Callable[[str, re.Match[str]], Any], field: str = "") -> Any:
    """A copy of `content` with act(field, its parts) instead of every reference to code."""
    if isinstance(content, Mapping):
        return {key: _replace(value, fields, act, key) for key, value in content.items()}
    if isinstance(content, list):
        return [_replace(item, fields, act, field) for item in content]
    parts = REFERENCE.fullmatch(content) if field in fields and isinstance(content, str) else None
    return content if parts is None else act(field, parts)


def save_copies(codes: Iterable[Code], folder: Path) -> None:
    """Copy the files of some code to the folder of copies in `folder`.

    Raises:
        InputError: different files have the same name, or one cannot be written.
    """
    for code in codes:
        target = folder / FOLDER / code.path.name
        if not target.exists():
            write_atomically(target, code.source)
        elif not code.found_in(target):
            raise InputError(f"{target} is already another file than {code.path}; rename one of them")
