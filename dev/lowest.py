"""Constraints that hold every dependency at the lowest version that pyproject.toml allows, for `make test-lowest`.

    python dev/lowest.py > constraints.txt

A floor of one or two numbers means the latest patch of that version: numpy>=2.0 becomes numpy==2.0.*.
"""

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def lowest(requirement: str) -> str:
    """`name[extra]>=floor,<ceiling` as `name==floor`, exactly or up to the patch."""
    name, floor = re.fullmatch(r"([\w-]+)(?:\[\w+\])?[>=]=([\d.]+)(?:,<[\d.]+)?", requirement).groups()
    numbers = floor.split(".")
    return f"{name}=={floor}" if len(numbers) == 3 else f"{name}=={'.'.join((numbers + ['0'])[:2])}.*"


def main() -> None:
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    named = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    print("\n".join(lowest(each) for each in named if not each.startswith(project["name"])))


if __name__ == "__main__":
    main()
