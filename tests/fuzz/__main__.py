"""Give every reader changed files, and count what comes of it: `make fuzz`, or `python tests/fuzz --help`.

A case is a valid input with some of its files changed (`mutations.py`), read in a process with limits (`worker.py`). It ends in
a result, in a clear error (an `InputError`, or exit code 2), or in a fault: a traceback, a hang, too much memory, a crash, a
program that was started, or control characters in what is printed. The same seed makes the same cases.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from worker import OUTCOMES, cases

HERE = Path(__file__).parent


def main() -> int:
    """Run the cases, print a table, and return 1 if there was a fault."""
    parser = argparse.ArgumentParser("python tests/fuzz", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--cases", type=int, default=100, help="for each reader; a sixth for slow ones")
    parser.add_argument("--first", type=int, default=0, help="number of the first case; -1 changes nothing")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="readers whose names contain this")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"), help="where faults go, with their inputs")
    parser.add_argument("--seconds", type=float, default=20.0, help="that a case may take")
    parser.add_argument("--gib", type=float, default=2.0, help="of memory that a case may take")
    told = vars(parser.parse_args())
    told["out"] = str(told["out"].resolve())
    Path(told["out"]).mkdir(parents=True, exist_ok=True)
    wanted = [reader.name for reader, _ in cases(told["cases"], told["first"], told["only"])]
    counts = {name: Counter[str]() for name in wanted}
    with tempfile.TemporaryDirectory(prefix="pocketvit-fuzz-", ignore_cleanup_errors=True) as scratch:
        seeds = Path(scratch, "seeds")
        seeds.mkdir()
        subprocess.run([sys.executable, HERE / "seeds.py", seeds], check=True, stdout=subprocess.DEVNULL)
        told |= {"scratch": scratch, "seeds": str(seeds)}
        for reader, number, outcome, detail in _lines(told):
            counts[reader][outcome] += 1
            if outcome in OUTCOMES[2:]:
                print(f"{outcome}: {reader} {number}: {detail.strip().rpartition(chr(10))[2][:200]}", flush=True)
    print(table(counts))
    Path(told["out"], "table.json").write_text(json.dumps(counts, indent=2) + "\n")
    faults = sum(count[kind] for count in counts.values() for kind in OUTCOMES[2:])
    missing = len(wanted) - sum(sum(count.values()) for count in counts.values())
    print(f"\n{faults} faults; {missing} cases not run" + (f"; see {told['out']}" if faults else ""))
    return int(faults > 0 or missing > 0)


def _lines(told: dict) -> Iterable[list]:
    """What the workers say, a case at a time, in any order."""
    commands = [
        [sys.executable, str(HERE / "worker.py"), json.dumps(told | {"share": share})] for share in range(told["jobs"])
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
