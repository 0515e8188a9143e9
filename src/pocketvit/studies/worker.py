"""One cell of a study, in a process of its own: an ordinary training that makes an ordinary run folder.

    python -m pocketvit.studies.worker CONFIG.yaml [LOCK]

The process ends with the one that started it, even if that is killed with SIGKILL: its standard input is a pipe that
the starter holds open, and the end of the pipe is the end of the process. On Linux the kernel sees to it as well, and
at once, where a thread may have to wait while torch is loaded.
"""

import ctypes
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

from pocketvit.config import load_config
from pocketvit.errors import InputError
from pocketvit.studies.launch import command_line

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h: the signal that a process gets when its starter dies."""


def end_with_starter() -> None:
    """See to it that this process ends when its standard input does, which is when its starter is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> int:
    """Train the cell; 0 done, 2 bad input, 1 another failure, above 128 stopped and saved.

    Where it fails, the last line that it writes says why: that line stands in the study's table.
    """
    started = time.perf_counter()
    end_with_starter()
    from rich.console import Console  # this and torch take seconds, in which the starter may be killed already

    from pocketvit.studies.turn import Turn
    from pocketvit.training import Stopped, train

    try:
        config = load_config(Path(sys.argv[1]), allow_code=True)  # whoever started the study agreed to it
        turn = Turn(Console(), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
        sys.argv = command_line(config)  # result.json and env.json keep it
        train(config, turn, started=started)
    except InputError as error:
        print(error)
        return 2
    except Stopped as stopped:
        print(stopped)
        return 128 + stopped.signum
    except Exception as error:
        traceback.print_exc()
        print(f"{type(error).__name__}: {error}".partition("\n")[0])
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
