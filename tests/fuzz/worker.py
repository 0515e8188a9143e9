"""Make and read the cases of one share, each in a process of its own, forked from one that has imported everything.

Called by `__main__.py`; writes a line of JSON for each case.
"""

import gc
import json
import os
import resource
import select
import shutil
import signal
import socket
import sys
import time
import traceback
import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).parent))

from mutations import mutate
from readers import READERS, Reader

OUTCOMES = ("result", "error", "traceback", "hang", "memory", "crash", "program", "control")
"""What may come of a case. The first two are right."""
SPARE = 2**32
"""Bytes that a case may reserve before it is refused more; it is reported long before."""
NAMES = (
    b"\xe9t\xe9", b"\xff\xfe", b"\x1b[2J\x1b[31m", b"a\nb", b"a\rb", b"\xe2\x80\xaeabc", b"x" * 255, b"-rf",
    b".x", b"a b", b"%s{0}", b"$(id)", b"train", b"test_set", b"e\xcc\x81", b"\xc3\xa9", b"[red]", b"<script>",
    b"'", b'"', b"*", b"CON", b"__MACOSX", b"a.png.part",
)  # fmt: skip
PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.spawn", "pty.spawn")
"""The events by which Python starts a program."""


def cases(count: int, first: int, only: str) -> Iterator[tuple[Reader, int]]:
    """Every reader with every number of a case; -1 changes nothing."""
    return ((reader, number) for reader in READERS if only in reader.name for number in range(first, first + count))


def main() -> None:
    """Run the share that the arguments give."""
    told = json.loads(sys.argv[1])
    share, scratch = told["share"], Path(told["scratch"]) / str(told["share"])
    scratch.mkdir()
    _import_all()
    for place, (reader, number) in enumerate(cases(told["cases"], told["first"], told["only"])):
        if place % told["jobs"] == share:
            folder = scratch / "case"
            for entry in scratch.iterdir():
                shutil.rmtree(entry, ignore_errors=True)
            _make(reader, number, told["seed"], Path(told["seeds"]), folder)
            outcome, detail = _run(reader, folder, Path(told["seeds"]), told["seconds"], told["gib"])
            if outcome in OUTCOMES[2:]:
                goal = Path(told["out"]) / f"{reader.name.replace(' ', '-').replace('/', '-')}-{number}"
                shutil.rmtree(goal, ignore_errors=True)
                _make(reader, number, told["seed"], Path(told["seeds"]), goal)  # as it was before it was read
                goal.with_name(f"{goal.name}.txt").write_text(f"{outcome}\n{detail}\n", errors="backslashreplace")
            line = json.dumps([reader.name, number, outcome, detail[-400:]]) + "\n"
            os.write(1, line.encode())  # at once, so that the lines of two workers do not mix


def _import_all() -> None:
    import pyarrow.parquet
    import sklearn.datasets
    import torch
    from PIL import Image

    import pocketvit.bench.throughput
    import pocketvit.cli
    import pocketvit.data.survey
    import pocketvit.inference.evaluate
    import pocketvit.report.page
    import pocketvit.studies.execution.forecast
    import pocketvit.studies.execution.runner
    import pocketvit.training  # noqa: F401

    Image.init()
    torch.set_num_threads(1)
    pyarrow.set_cpu_count(1)
    sklearn.datasets.load_digits()
    warnings.simplefilter("ignore")  # such as that of a name that is twice in a zip file
    gc.freeze()  # else what is collected is copied in every process


def _make(reader: Reader, number: int, seed: int, seeds: Path, folder: Path) -> None:
    """Make a case in a process of its own, so that what takes memory is not counted to what comes later."""
    child = os.fork()
    if child == 0:
        try:
            _change(reader, number, seed, seeds, folder)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError(f"case {number} of {reader.name} cannot be made")


def _change(reader: Reader, number: int, seed: int, seeds: Path, folder: Path) -> None:
    """A variant of the reader's seed, with one or two of its files changed."""
    random = Random(f"{seed} {reader.name} {number}")
    shutil.copytree(random.choice(sorted((seeds / reader.seed).iterdir())), folder)
    files = sorted(file for file in folder.glob(reader.pattern) if file.is_file())
    for file in random.sample(files, min(len(files), random.choice((1, 1, 1, 2)))) if number >= 0 else ():
        if reader.name == "folder names":
            _rename(random.choice((file, file.parent)), random)
        elif random.random() < 0.03:
            _replace(file, random)
        else:
            file.write_bytes(mutate(file.read_bytes(), random))


def _rename(path: Path, random: Random) -> None:
    """Give a file or a folder a name that is hard to print, or means something."""
    if path.exists():
        ending = os.fsencode(path.suffix)
        name = (
            random.choice(NAMES)
            if random.random() < 0.8
            else random.randbytes(8).replace(b"/", b"").replace(b"\0", b"")
        )
        os.rename(path, os.path.join(os.fsencode(path.parent), (name[: 255 - len(ending)] or b"x") + ending))


def _replace(file: Path, random: Random) -> None:
    """Put something else than a file in its place."""
    file.unlink()
    match random.randrange(7):
        case 0:
            os.mkfifo(file)
        case 1:
            file.symlink_to("/dev/zero")
        case 2:
            file.symlink_to(file.name)
        case 3:
            file.symlink_to("nowhere")
        case 4:
            file.mkdir()
        case 5:
            file.touch()
        case 6:
            with socket.socket(socket.AF_UNIX) as stranger:
                os.chdir(file.parent)
                stranger.bind(file.name)


def _run(reader: Reader, folder: Path, seeds: Path, seconds: float, gib: float) -> tuple[str, str]:
    """What comes of reading a case, and more on it."""
    said, ours = os.pipe()
    printed = folder.with_name("printed")
    child = os.fork()
    if child == 0:
        os.close(said)
        _read(reader, folder, seeds, ours, printed)
    os.close(ours)
    answer, end, stopped = b"", time.monotonic() + seconds, False
    while not stopped:
        ready, _, _ = select.select([said], [], [], max(0.0, end - time.monotonic()))
        block = os.read(said, 65_536) if ready else b""
        answer, stopped = answer + block, not block
    os.close(said)
    late = time.monotonic() >= end
    if late:
        os.kill(child, signal.SIGKILL)
    _, status, used = os.wait4(child, 0)
    text = printed.read_text(errors="replace") if printed.exists() else ""
    if late:
        return "hang", f"more than {seconds:g} s\n{text[-2_000:]}"
    if used.ru_maxrss > gib * 2**20 or "out of memory" in text:
        return "memory", f"{used.ru_maxrss / 2**20:.2f} GiB\n{text[-2_000:]}\n{answer.decode()}"
    if status or not answer:
        return "crash", f"status {status}\n{text[-2_000:]}"
    outcome, detail = json.loads(answer)
    if outcome in ("result", "error"):
        if "Traceback (most recent" in text:
            return "traceback", text[-2_000:]
        if strange := {
            letter for letter in text if unicodedata.category(letter) in ("Cc", "Cf") and letter not in "\n\u200c\u200d"
        }:
            return "control", f"{sorted(strange)!r} in\n{text[-2_000:]!r}"
    return outcome, detail or text


def _read(reader: Reader, folder: Path, seeds: Path, answer: int, printed: Path) -> NoReturn:
    """Read a case and end the process; says what came of it."""
    _limit()
    os.chdir(folder.parent)
    for place, name in ((0, os.devnull), (1, printed), (2, printed)):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND), place)
    sys.stdout, sys.stderr = (open(place, "w", encoding="utf-8", closefd=False) for place in (1, 2))
    started: list[str] = []
    sys.addaudithook(lambda event, about: _watch(started, event, about))
    outcome, detail = "result", ""
    try:
        reader.read(folder, seeds)
    except SystemExit as end:
        outcome = {0: "result", 1: "result", 3: "result", 2: "error"}.get(end.code or 0, "traceback")
    except BaseException as error:
        from pocketvit.errors import InputError

        outcome = "error" if isinstance(error, InputError) else "traceback"
        detail = str(error) if outcome == "error" else traceback.format_exc()[-3_000:]
    if started:
        outcome, detail = "program", "\n".join(started)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.write(answer, json.dumps([outcome, detail[:60_000]]).encode())
    os._exit(0)


def _watch(started: list[str], event: str, about: Any) -> None:
    """Note a program that is started, but for those that say where a run is made; what starts one is told of by events."""
    if event in PROGRAMS and not (event == "subprocess.Popen" and about[0] in ("git", "uname")):
        started.append(f"{event} {about!r:.300}")


def _limit() -> None:
    """Let no case take the machine."""
    reserved = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (reserved + SPARE, reserved + SPARE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (SPARE, SPARE))


if __name__ == "__main__":
    main()
