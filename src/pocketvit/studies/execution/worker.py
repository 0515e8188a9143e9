"""One cell of a study in its own process: an ordinary run with an ordinary run folder.

    python -m pocketvit.studies.execution.worker CONFIG.yaml [--exclusive] [--weights NAME ...] [--track NAME GROUP]
        [--code FILE ...]

With --exclusive it trains only while it holds the lock of its device (`gpu_lock.py`).

FILE is the original of the configuration's copy of the user's code. While its content is unchanged, errors and the
recorded command name it, otherwise the copy in the run folder; the same code runs either way. NAME is what the recorded
command calls a trained model, of which the configuration has a copy.

The process ends with its parent, even if that is killed with SIGKILL: its standard input is a pipe that the parent holds
open, and a thread exits at its end. On Linux the kernel also ends it, and at once, where the thread may have to wait
while torch is loaded.
"""

import argparse
import ctypes
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from pathlib import Path

from pocketvit.config import RunConfig, code_of, load_config, override, weights_of
from pocketvit.config.weights import Weights
from pocketvit.errors import InputError
from pocketvit.process import collect_less
from pocketvit.studies.execution.launch import command_line
from pocketvit.terminal import tolerate_any_encoding
from pocketvit.usercode import FOLDER, Code

PR_SET_PDEATHSIG = 1  # from linux/prctl.h: the signal that a process gets when its parent dies


def end_with_starter() -> None:
    """End this process when its standard input ends, that is, when its parent is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def with_lasting_code(config: RunConfig, origins: Iterable[Path]) -> RunConfig:
    """The configuration with its code taken from a lasting file: the user's, or the copy in the run folder.

    Args:
        config: with the code read from copies.
        origins: the files that were copied.
    """
    files, lasting = {path.name: path for path in origins}, {}
    for field, code in code_of(config).items():
        origin = files.get(code.path.name)
        path = origin if origin and code.found_in(origin) else Path(config.out or "", FOLDER, code.path.name).absolute()
        lasting[field] = Code(path, code.name, code.source)
    return override(config, lasting)


def with_names(config: RunConfig, names: Iterable[str]) -> RunConfig:
    """The configuration with its trained models, which are copies, called by these names."""
    models = weights_of(config)
    named = zip(models.items(), names, strict=True)
    return override(config, {field: Weights(model.path, model.digest, name) for (field, model), name in named})


def reason(error: Exception, codes: Iterable[Code]) -> str:
    """Why training failed, in one line, with the lines of the user's code that the error passed through."""
    why = f"{type(error).__name__}: {error}".partition("\n")[0]
    places = {code.path: line for code in codes if (line := code.line_of(error))}
    return why + "".join(f" ({path}, line {line})" for path, line in places.items())


def main() -> int:
    """Train the cell; 0 done, 2 bad input, 1 another failure, above 128 stopped and saved.

    If it fails, its last line of output says why, and is shown in the study's table.
    """
    started = time.perf_counter()
    tolerate_any_encoding()
    collect_less()
    end_with_starter()
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("--exclusive", action="store_true")
    parser.add_argument("--weights", nargs="*", default=[])
    parser.add_argument("--track", nargs=2)
    parser.add_argument("--code", type=Path, nargs="*", default=[])
    given = parser.parse_args()
    from rich.console import Console  # this and torch take seconds, in which the parent may already be killed

    from pocketvit.studies.execution.gpu_lock import LockingReporter, device_lock
    from pocketvit.training import Stopped, train
    from pocketvit.training.tracking import tracked

    codes: list[Code] = []
    try:
        config = load_config(given.config, allow_code=True)  # whoever started the study agreed to it
        config = with_lasting_code(with_names(config, given.weights), given.code)
        codes += code_of(config).values()
        reporter = LockingReporter(Console(), device_lock if given.exclusive else None)
        sys.argv = command_line(config)  # recorded in result.json and env.json
        if given.track:
            reporter = tracked(given.track[0], reporter, group=given.track[1])
        train(config, reporter, started=started)
    except InputError as error:
        print(error)
        return 2
    except Stopped as stopped:
        print(stopped)
        return 128 + stopped.signum
    except Exception as error:
        traceback.print_exc()
        print(reason(error, codes))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
