"""Write to terminals, pipes and files that lack characters, or can no longer be written."""

import contextlib
import io
import os
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from rich.cells import cell_len

NAME = 60  # most letters of a name in a table


def printable(text: object, most: int = 1_000) -> str:
    """Text in one line of limited length, with control characters escaped.

    Names of files and classes, and answers of servers, are not trusted: they may move the cursor, or reverse the
    direction of writing around.
    """
    shown = str(text)
    if not shown.isprintable():
        shown = "".join(
            letter.encode("unicode_escape").decode() if _is_obeyed(letter) else letter for letter in shown[: most + 1]
        )
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def aligned(names: Sequence[str], least: int = 0) -> list[str]:
    """Names, with blanks up to one width in a terminal, where letters of Chinese, Japanese and Korean take two columns."""
    width = max([least, *map(cell_len, names)])
    return [name + " " * (width - cell_len(name)) for name in names]


def _is_obeyed(letter: str) -> bool:
    """Whether a character is not shown: control, format (except joiners), half of a surrogate pair, new line."""
    return unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") and letter not in "\u200c\u200d"


def say(text: object, file: TextIO | None = None) -> None:
    """Print some lines, each `printable`."""
    for line in str(text).split("\n"):
        print(printable(line), file=file)


def tolerate_any_encoding() -> None:
    """Let stdout and stderr write ? for characters that their encoding lacks, such as × in ASCII."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def forsake(stream: TextIO) -> None:
    """Redirect a stream to nowhere; its buffer must go somewhere when Python ends."""
    with contextlib.suppress(OSError), open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


@contextlib.contextmanager
def outliving_output() -> Iterator[None]:
    """Inside, a full disk or a closed pipe behind stdout or stderr stops nothing; it is reported once, on stderr."""
    out, err = (stream and _Outlived(stream) for stream in (sys.stdout, sys.stderr))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            yield
        finally:
            for stream in filter(None, (out, err)):
                stream.flush()


class _Outlived:
    """A stream that discards everything after a failed write."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write if possible."""
        with self._outlived():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush if possible."""
        with self._outlived():
            self.stream.flush()

    @contextlib.contextmanager
    def _outlived(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            forsake(self.stream)
            name = self.stream.name.strip("<>")
            print(f"pocketvit: {name} cannot be written ({error.strerror}); continuing without it", file=sys.stderr)
