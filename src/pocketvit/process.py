"""Start and end a program's process quickly."""

import atexit
import gc


def collect_less() -> None:
    """Let Python look for unreachable objects that refer to each other less often, and not as it ends.

    PyTorch's import makes half a million objects that stay. Looking through them again and again while it is imported, and once
    more at the end, takes a quarter of a command's start and end. For programs alone: whoever imports the package decides for
    themselves.
    """
    gc.set_threshold(100_000, 50, 1_000)
    atexit.register(gc.freeze)
