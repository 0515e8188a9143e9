"""What the tests reach and what strangers' files did: keeps the figures of `make coverage` and `make fuzz` under results/.

python -m benchmarks.trust coverage    # after make coverage
python -m benchmarks.trust fuzz        # after make fuzz
"""

import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pocketvit.files import read_json, write_json
from pocketvit.runs.provenance import git_state
from pocketvit.tables import ABSENT_YET, markdown_table

ROOT = Path(__file__).parents[1]
SOURCES = {"coverage": "coverage/coverage.json", "fuzz": "fuzz/table.json"}
"""Below runs/, what the two commands leave."""
COUNTS = ("num_statements", "covered_lines", "num_branches", "covered_branches")
FAULTS = ("traceback", "hang", "memory", "crash", "program", "control")


def by_folder(files: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """coverage.py's counts of each folder of the package; of files at its top, those of `pocketvit`."""
    found: dict[str, Counter[str]] = {}
    for name, file in files.items():
        parts = Path(name.partition("pocketvit/")[2]).parts
        counts = {count: file["summary"].get(count, 0) for count in COUNTS}
        found.setdefault(parts[0] if len(parts) > 1 else "pocketvit", Counter()).update(counts)
    return {folder: dict(counts) for folder, counts in sorted(found.items())}


def coverage_table(file: Path) -> str:
    """The share of lines and branches of each folder that the CPU suite reaches."""
    folders = {name: Counter(counts) for name, counts in read_json(file)["folders"].items()}
    others = [counts for name, counts in folders.items() if name != "kernels"]
    rows = [
        {"folder": name if name.startswith("all") else f"`{name}`", "lines": f"{c['num_statements']:,}",
         "reached": _percent(c["covered_lines"], c["num_statements"]), "branches": f"{c['num_branches']:,}",
         "taken": _percent(c["covered_branches"], c["num_branches"]),
         "both": _percent(c["covered_lines"] + c["covered_branches"], c["num_statements"] + c["num_branches"])}
        for name, c in [*folders.items(), ("all but `kernels`", sum(others, Counter()))]
    ]  # fmt: skip
    return markdown_table(rows, list(rows[0]))


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "—"


def fuzz_table(file: Path) -> str:
    """What the cases of each reader ended in."""
    if not file.is_file():
        return f"{ABSENT_YET}: `make fuzz`, then `python -m benchmarks.trust fuzz`"
    readers = {name: Counter(counts) for name, counts in read_json(file)["readers"].items()}
    rows = [
        {"reader": name, "cases": f"{counts.total():,}", "a result": f"{counts['result']:,}",
         "one clear error": f"{counts['error']:,}", "a fault": f"{sum(counts[kind] for kind in FAULTS):,}"}
        for name, counts in [*readers.items(), ("all", sum(readers.values(), Counter()))]
    ]  # fmt: skip
    return markdown_table(rows, list(rows[0]))


def main(what: str) -> None:
    """Keep the figures of one of the two, with the commit."""
    held = read_json(ROOT / "runs" / SOURCES[what])
    about = {"commit": git_state()[0], "command": f"make {what}"}
    content = {"folders": by_folder(held["files"])} if what == "coverage" else held  # with the commit that was run
    (ROOT / "results" / what).mkdir(exist_ok=True)
    write_json(ROOT / "results" / what / "cpu.json", about | content)
    print((coverage_table if what == "coverage" else fuzz_table)(ROOT / "results" / what / "cpu.json"))


if __name__ == "__main__":
    main(sys.argv[1])
