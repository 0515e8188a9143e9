"""Exclusive lock on a folder, inherited by child processes.

Not by filelock: its release unlocks the file for child processes as well, and its lock is one more file in the folder.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pocketvit.errors import InputError

if sys.platform == "win32":
    fcntl = None
else:
    import fcntl

WAIT_S = 15.0  # how long killed or restarted processes may take to release the lock
TICK_S = 0.2


@contextmanager
def locked(folder: Path, busy: str, say: Callable[[str], None] = print) -> Iterator[int | None]:
    """Lock a folder inside this context, and as long as the descriptor is open in a process that inherited it.

    The lock ends with the processes, however they end. Windows and file systems like NFS have no such locks; there,
    nothing is locked.

    Args:
        folder: exists.
        busy: the message if another process holds it.
        say: is told once that this waits for another process.
    Returns:
        the descriptor that holds the lock; None without locks.
    Raises:
        InputError: `busy`.
    """
    if fcntl is None:
        yield None
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _wait_for(descriptor, folder, busy, say)
        yield descriptor
    finally:
        os.close(descriptor)


def _wait_for(descriptor: int, folder: Path, busy: str, say: Callable[[str], None]) -> None:
    until, said = time.monotonic() + WAIT_S, False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise InputError(busy) from None
            if not said:
                say(f"waiting up to {WAIT_S:g} s for another process to leave {folder}")
                said = True
            time.sleep(TICK_S)
        except OSError:  # the file system has no locks
            return
