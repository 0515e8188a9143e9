"""Stopping a run between two steps, when a signal asks for it."""

import signal
import threading
from dataclasses import dataclass
from pathlib import Path


class Stopped(Exception):
    """A signal asked the run to stop; it has been saved.

    Attributes:
        signum: the signal.
    """

    def __init__(self, signum: int, folder: Path) -> None:
        super().__init__(f"stopped and saved; go on with: pocketvit train --resume {folder}")
        self.signum = signum


@dataclass
class StopRequest:
    """Notes SIGINT and SIGTERM while it is entered; asked a second time, it raises KeyboardInterrupt at once."""

    signum: int | None = None

    def __enter__(self) -> "StopRequest":
        self.before = {}
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            for signum in (signal.SIGINT, signal.SIGTERM):
                self.before[signum] = signal.signal(signum, self._note)
        return self

    def _note(self, signum: int, _frame: object) -> None:
        if self.signum is not None:
            raise KeyboardInterrupt
        self.signum = signum

    def __exit__(self, *_: object) -> None:
        for signum, handler in self.before.items():
            signal.signal(signum, handler)
