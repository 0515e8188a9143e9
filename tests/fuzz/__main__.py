"""Give every reader changed files, and count what comes of it: `make fuzz`, or `python tests/fuzz --help`.

A case is a valid input with some of its files changed (`mutations.py`), read in a process with limits (`worker.py`). It ends in
a result, in a clear error (an `InputError`, or exit code 2), or in a fault: a traceback, a hang, too much memory, a crash, a
program that was started, or control characters in what is printed. The same seed makes the same cases.

A case is noted as soon as it is done: a run may be stopped at any time, and `--resume` goes on with it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from readers import READERS
from worker import OUTCOMES, TOGETHER, cases

HERE = Path(__file__).parent


def main() -> int:
    """Run the cases, print a table, and return 1 if there was a fault or not every case was run."""
    parser = argparse.ArgumentParser("python tests/fuzz", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--cases", type=int, default=100, help="for each reader; a sixth for slow ones")
    parser.add_argument("--first", type=int, default=0, help="number of the first case; -1 changes nothing")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="readers whose names contain this")
    parser.add_argument("--jobs", type=int, default=2, help="processes that read cases")
    parser.add_argument("--time-limit", type=float, default=float("inf"), help="seconds after which no case is begun")
    parser.add_argument("--resume", action="store_true", help="go on with the run in OUT: do what it has not done")
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"), help="where faults go, with their inputs")
    parser.add_argument("--seconds", type=float, default=20.0, help="that a case may take")
    parser.add_argument("--gib", type=float, default=2.0, help="of memory that a case may take")
    told = vars(parser.parse_args())
    told["until"] = time.monotonic() + told.pop("time_limit")
    out = told["out"] = told["out"].resolve()
    out.mkdir(parents=True, exist_ok=True)
    done = _done(out) if told["resume"] else {}
    wanted = [(reader.name, number) for reader, number in cases(told["cases"], told["first"], told["only"])]
    # Some cases of every reader, then some more of each: a run that is stopped has got as far with all of them.
    todo = sorted((case for case in wanted if case not in done), key=lambda case: case[1] // (TOGETHER * told["jobs"]))
    if todo:
        if _about(told, out, goes_on=bool(done)):
            parser.error(f"{out} is of another seed, commit, version or limit: leave out --resume")
        _run(told, todo, done)
    counts = {reader.name: Counter[str]() for reader in READERS}
    for (name, _), outcome in done.items():
        counts[name][outcome] += 1
    counts = {name: count for name, count in counts.items() if count}
    print(table(counts))
    about = json.loads((out / "about.json").read_text())
    (out / "table.json").write_text(json.dumps(about | {"readers": counts}, indent=2) + "\n")
    faults = sum(count[kind] for count in counts.values() for kind in OUTCOMES[2:])
    missing = sum(case not in done for case in wanted)
    print(f"\n{faults} faults; {missing} cases not run" + (f"; see {out}" if faults else ""))
    return int(faults > 0 or missing > 0)


def _done(out: Path) -> dict[tuple[str, int], str]:
    """The cases that the run in a folder has done, and what came of each."""
    lines = (out / "cases.jsonl").read_text().splitlines() if (out / "cases.jsonl").exists() else ()
    return {(reader, number): outcome for reader, number, outcome in map(json.loads, lines)}


def _about(told: dict, out: Path, *, goes_on: bool) -> bool:
    """Keep what holds for all cases of a run; or, if it goes on, say whether that has changed."""
    from pocketvit.runs.provenance import git_state, versions

    about = {
        "commit": git_state()[0],
        "versions": versions(),
        **{name: told[name] for name in ("seed", "seconds", "gib")},
    }
    if goes_on:
        return json.loads((out / "about.json").read_text()) != about
    (out / "about.json").write_text(json.dumps(about) + "\n")
    (out / "cases.jsonl").write_text("")
    return False


def _run(told: dict, todo: list[tuple[str, int]], done: dict[tuple[str, int], str]) -> None:
    """Run cases; note what came of each in `done` and in the file, and print the faults."""
    with (told["out"] / "cases.jsonl").open("a", buffering=1) as kept:
        for reader, number, outcome, detail in _lines(told, todo):
            done[reader, number] = outcome
            kept.write(json.dumps([reader, number, outcome]) + "\n")
            if outcome in OUTCOMES[2:]:
                print(f"{outcome}: {reader} {number}: {detail.strip().rpartition(chr(10))[2][:200]}", flush=True)


def _lines(told: dict, todo: list[tuple[str, int]]) -> Iterable[list]:
    """What the workers say, a case at a time, in any order."""
    with tempfile.TemporaryDirectory(prefix="pocketvit-fuzz-", ignore_cleanup_errors=True) as scratch:
        seeds = Path(scratch, "seeds")
        seeds.mkdir()
        subprocess.run([sys.executable, HERE / "seeds.py", seeds], check=True, stdout=subprocess.DEVNULL)
        Path(scratch, "todo.json").write_text(json.dumps(todo))
        told = told | {"scratch": scratch, "seeds": str(seeds), "out": str(told["out"])}
        commands = [
            [sys.executable, str(HERE / "worker.py"), json.dumps(told | {"share": share})]
            for share in range(told["jobs"])
        ]
        reading, writing = os.pipe()
        workers = [subprocess.Popen(command, stdout=writing) for command in commands]
        os.close(writing)
        with open(reading) as lines:
            yield from map(json.loads, lines)
        for worker in workers:
            worker.wait()


def table(counts: dict[str, Counter[str]]) -> str:
    """The counts as Markdown."""
    lines = [("reader", "cases", *OUTCOMES), ("---", *["---:"] * (1 + len(OUTCOMES)))]
    for name, count in [*counts.items(), ("all", sum(counts.values(), Counter()))]:
        lines.append((name, str(sum(count.values())), *(str(count[kind]) for kind in OUTCOMES)))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    sys.exit(main())
