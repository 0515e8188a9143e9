"""Trainings that take turns on one device.

While one cell trains, the next one on the same GPU already imports, compiles and captures; it trains as soon as it
gets the lock, so that no two trainings ever share the GPU and their times stay comparable.
"""

from pathlib import Path
from typing import IO

from rich.console import Console

from pocketvit.training.progress import Lines


class Turn(Lines):
    """Says a line now and then, and trains only while it holds the lock.

    Args:
        console: where the lines go.
        lock: a file that all trainings on the device lock; none to train at once.
    """

    def __init__(self, console: Console, lock: Path | None) -> None:
        super().__init__(console)
        self.file: IO[str] | None = open(lock, "w") if lock else None

    def start(self, total_steps: int, done_steps: int) -> None:
        """Wait for the device."""
        if self.file:
            import fcntl  # not on Windows, where no lock is given

            fcntl.flock(self.file, fcntl.LOCK_EX)
        self.note(f"training from step {done_steps} of {total_steps}")

    def stop(self) -> None:
        """Leave the device to the next one: what is still to do needs little of it."""
        if self.file:
            self.file.close()
