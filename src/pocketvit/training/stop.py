"""Stop a run between two steps on a signal."""

import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from pocketvit.usercode import FOLDER as CODE_FOLDER

AGAIN_S = 1.0  # from then on, a second Ctrl-C counts: a terminal and torchrun both pass on the first one


class Stopped(Exception):
    """A signal asked the run to stop; it has been saved.

    Args:
        signum: the signal, also an attribute.
        folder: of the run.
    """

    def __init__(self, signum: int, folder: Path) -> None:
        consent = " --allow-code" if (folder / CODE_FOLDER).is_dir() else ""
        super().__init__(f"stopped and saved; resume with: pocketvit train --resume {quote(str(folder))}{consent}")
        self.signum = signum


@dataclass
class StopRequest:
    """Records SIGINT and SIGTERM inside this context; a second Ctrl-C raises KeyboardInterrupt at once.

    A second SIGTERM changes nothing: a batch system sends one to every process, and torchrun passes its own one on.
    """

    signum: int | None = None

    def __enter__(self) -> "StopRequest":
        self.before = {}
        if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
            for signum in (signal.SIGINT, signal.SIGTERM):
                self.before[signum] = signal.signal(signum, self._note)
        return self

    def _note(self, signum: int, _frame: object) -> None:
        now = time.monotonic()
        if self.signum is None:
            self.signum, self.asked_at = signum, now
        elif signum == signal.SIGINT and now - self.asked_at >= AGAIN_S:
            raise KeyboardInterrupt

    def __exit__(self, *_: object) -> None:
        for signum, handler in self.before.items():
            signal.signal(signum, handler)
