"""Writing to terminals, pipes and files that do not know every letter, or cannot be written any more."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


def tolerate_any_encoding() -> None:
    """Let stdout and stderr write ? for what their encoding lacks, such as × in ASCII, rather than raise."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


@contextlib.contextmanager
def outliving_output() -> Iterator[None]:
    """Inside, a full disk or a closed pipe behind stdout or stderr ends nothing; it is said once, on stderr."""
    out, err = (stream and _Outlived(stream) for stream in (sys.stdout, sys.stderr))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            yield
        finally:
            for stream in filter(None, (out, err)):
                stream.flush()


class _Outlived:
    """A stream that leads nowhere from when it could not be written."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write, if that is possible."""
        with self._outlived():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Write what is held back, if that is possible."""
        with self._outlived():
            self.stream.flush()

    @contextlib.contextmanager
    def _outlived(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            with open(os.devnull, "w") as nowhere:  # what is still held back must go somewhere when Python ends
                os.dup2(nowhere.fileno(), self.stream.fileno())
            name = self.stream.name.strip("<>")
            print(f"pocketvit: {name} cannot be written ({error.strerror}); the work goes on", file=sys.stderr)
