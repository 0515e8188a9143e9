"""Make and read the cases of one share, in processes forked from one that has imported everything.

To fork takes ten times as long as to read most files, so a process reads some cases one after the other. What goes wrong there is
read again by a process that has read nothing before, and that counts.

Called by `__main__.py`; writes a line of JSON for each case.
"""

import gc
import json
import os
import resource
import shutil
import signal
import socket
import sys
import time
import traceback
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from mutations import bomb, mutate
from readers import READERS, Reader

OUTCOMES = ("result", "error", "traceback", "hang", "memory", "crash", "program", "control")
"""What may come of a case. The first two are right."""
TOGETHER = 100
"""Cases that a process reads."""
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
    """Every reader with every number of a case; -1 changes nothing. Slow readers get a sixth."""
    for reader in READERS:
        if only in reader.name:
            yield from ((reader, number) for number in range(first, first + (-(-count // 6) if reader.slow else count)))


def main() -> None:
    """Run the share that the arguments give."""
    told = json.loads(sys.argv[1])
    scratch, seeds, out = Path(told["scratch"], str(told["share"])), Path(told["seeds"]), Path(told["out"])
    _import_all()
    mine = json.loads(Path(told["scratch"], "todo.json").read_text())[told["share"] :: told["jobs"]]
    readers = {reader.name: reader for reader in READERS}
    for name, its in groupby(mine, key=lambda case: case[0]):
        numbers = [number for _, number in its]
        for start in range(0, len(numbers), TOGETHER):
            shutil.rmtree(scratch, ignore_errors=True)
            batch = {number: scratch / str(number) / "case" for number in numbers[start : start + TOGETHER]}
            try:
                _batch(readers[name], batch, told, seeds, out)
            except RuntimeError:  # cases that cannot be made are not run; the others are
                traceback.print_exc()
            if time.monotonic() > told["until"]:
                return


def _batch(reader: Reader, batch: dict[int, Path], told: dict[str, Any], seeds: Path, out: Path) -> None:
    """Run some cases, until the time is over; say what came of each, and keep the inputs of the faults."""
    for number, outcome, detail in _outcomes(reader, batch, told["seed"], seeds, told["seconds"], told["gib"]):
        if outcome in OUTCOMES[2:]:
            goal = out / f"{reader.name.replace(' ', '-').replace('/', '-')}-{number}"
            shutil.rmtree(goal, ignore_errors=True)
            _make(reader, {number: goal}, told["seed"], seeds)  # as it was before it was read
            goal.with_name(f"{goal.name}.txt").write_text(f"{outcome}\n{detail}\n", errors="backslashreplace")
        line = json.dumps([reader.name, number, outcome, detail[-400:]]) + "\n"
        os.write(1, line.encode())  # at once, so that the lines of two workers do not mix
        if time.monotonic() > told["until"]:
            return


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
    bomb()
    gc.freeze()  # else what is collected is copied in every process


def _make(reader: Reader, cases: dict[int, Path], seed: int, seeds: Path) -> None:
    """Make cases in a process of their own, so that what takes memory is not counted to what comes later."""
    child = os.fork()
    if child == 0:
        try:
            _limit()  # a change of a change may ask for 500 GiB, which some machines have
            for number, folder in cases.items():
                _change(reader, number, seed, seeds, folder)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError(f"a case of {sorted(cases)} of {reader.name} cannot be made")


def _outcomes(
    reader: Reader, cases: dict[int, Path], seed: int, seeds: Path, seconds: float, gib: float
) -> Iterator[tuple[int, str, str]]:
    """Make cases and read them; for each, its number, what comes of it, and more on it."""
    _make(reader, cases, seed, seeds)
    left = list(cases)
    while left:
        first = left[0]
        for outcome, detail in _run(reader, [cases[number] for number in left], seeds, seconds, gib):
            if outcome in OUTCOMES[2:] and outcome != "crash" and left[0] != first:
                shutil.rmtree(cases[left[0]].parent)
                _make(reader, {left[0]: cases[left[0]]}, seed, seeds)
                break  # and again, alone
            yield left.pop(0), outcome, detail


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
        goal = os.path.join(os.fsencode(path.parent), (name[: 255 - len(ending)] or b"x") + ending)
        if not os.path.lexists(goal):
            os.rename(path, goal)


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


def _run(reader: Reader, folders: Sequence[Path], seeds: Path, seconds: float, gib: float) -> Iterator[tuple[str, str]]:
    """What comes of reading cases in one process, and more on it, up to the first that goes wrong."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if child == 0:
        try:
            ours.close()
            _read(reader, folders, seeds, theirs)
        finally:
            os._exit(1)
    theirs.close()
    ours.settimeout(seconds)
    try:
        for folder in folders:
            try:
                answer = ours.recv(2**17)
            except TimeoutError:
                answer = None
            outcome, detail = _judge(answer, folder.with_name("printed"), gib)
            yield outcome, f"more than {seconds:g} s\n{detail}" if outcome == "hang" else detail
            if outcome in OUTCOMES[2:]:
                return
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        ours.close()


def _judge(answer: bytes | None, printed: Path, gib: float) -> tuple[str, str]:
    """What came of a case by the process's answer, of which none came in time (None) or at all (empty), and what it printed."""
    text = printed.read_text(errors="replace") if printed.exists() else ""
    if not answer:
        kind = "hang" if answer is None else "memory" if "out of memory" in text else "crash"
        return kind, text[-2_000:]
    outcome, detail, peak = json.loads(answer)
    if peak > gib * 2**20 or "out of memory" in text:
        return "memory", f"{peak / 2**20:.2f} GiB\n{text[-2_000:]}\n{outcome} {detail}"
    if outcome in ("result", "error"):
        if "Traceback (most recent" in text:
            return "traceback", text[-2_000:]
        if strange := {
            letter for letter in text if unicodedata.category(letter) in ("Cc", "Cf") and letter not in "\n\u200c\u200d"
        }:
            return "control", f"{sorted(strange)!r} in\n{text[-2_000:]!r}"
    return outcome, detail or text


def _read(reader: Reader, folders: Sequence[Path], seeds: Path, answers: socket.socket) -> None:
    """Read cases, and say what came of each and the peak of the memory so far, in KiB."""
    started: list[str] = []
    sys.addaudithook(lambda event, about: _watch(started, event, about))
    variables = dict(os.environ)
    for folder in folders:
        os.environ.clear()
        os.environ.update(variables)
        os.chdir(folder.parent)
        _limit()
        for place, name in ((0, os.devnull), (1, "printed"), (2, "printed")):
            opened = os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            os.dup2(opened, place)
            os.close(opened)
        sys.stdout, sys.stderr = (open(place, "w", encoding="utf-8", closefd=False) for place in (1, 2))
        outcome, detail = _read_one(reader, folder, seeds)
        if started:
            outcome, detail = "program", "\n".join(started)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        answers.send(json.dumps([outcome, detail[:60_000], peak]).encode())


def _read_one(reader: Reader, folder: Path, seeds: Path) -> tuple[str, str]:
    from pocketvit.errors import InputError

    try:
        reader.read(folder, seeds)
    except SystemExit as end:
        return {0: "result", 1: "result", 3: "result", 2: "error"}.get(end.code or 0, "traceback"), ""
    except InputError as error:
        return "error", str(error)
    except BaseException:
        return "traceback", traceback.format_exc()[-3_000:]
    return "result", ""


def _watch(started: list[str], event: str, about: Any) -> None:
    """Note a program that is started, but for those that say where a run is made; what starts one is told of by events."""
    if event in PROGRAMS and not (event == "subprocess.Popen" and about[0] in ("git", "uname")):
        started.append(f"{event} {about!r:.300}")


def _limit() -> None:
    """Let no case take the machine."""
    reserved = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (reserved + SPARE, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (SPARE, SPARE))


if __name__ == "__main__":
    main()
