"""Writing to terminals and files that do not know every letter."""

import io
import sys


def tolerate_any_encoding() -> None:
    """Let stdout and stderr write ? for what their encoding lacks, such as × in ASCII, rather than raise."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
