"""Write every table of the README and the docs anew from results/.

    python benchmarks/tables.py
"""

import json
import shlex
from pathlib import Path

from pocketvit.bench.table import speed_table
from pocketvit.config import override
from pocketvit.report import PublishedRow, results_table, update_readme
from pocketvit.studies import load_study
from pocketvit.studies.launch import command_line

ROOT = Path(__file__).parents[1]
STUDIES = {
    "paper-baseline": "paper_baseline.yaml",
    "learning-rate": "learning_rate.yaml",
    "design-space": "design_space.yaml",
    "digits": "digits.yaml",
}
"""Folder under results/, and the file in benchmarks/ that its rows were run from."""
PUBLISHED = {
    "paper-baseline": (
        PublishedRow(
            name="the paper's baseline (Wu 2025)",
            best_test_accuracy=0.9365,
            images_per_s=3215,
            train_s=4658,
            num_params=2_697_610,
            hardware="NVIDIA RTX 3090",
        ),
    ),
}
PLACES = {
    "README.md": ("paper-baseline", "digits"),
    "docs/design-space.md": ("design-space",),
    "docs/paper-baseline.md": ("learning-rate", "paper-baseline"),
    "docs/fast.md": ("paper-table1",),
}
"""Which tables stand in which document."""
BENCH = "paper-table1"
"""The one that `pocketvit bench` made rather than runs."""


def table(study: str) -> str:
    """A study's table, with the commands that run its rows again; or a bench's."""
    if study == BENCH:
        return speed_table(json.loads((ROOT / "results" / BENCH / "bench.json").read_text()))
    commands = {}
    for cell in load_study(ROOT / "benchmarks" / STUDIES[study]).cells():
        text = shlex.join(command_line(override(cell.config, {"seed": 0})))
        commands[cell.row] = f"{text} --seed SEED" if cell.row in commands else text
    return results_table(ROOT / "results" / study, PUBLISHED.get(study, ()), commands)


def main() -> None:
    for document, studies in PLACES.items():
        for study in studies:
            if update_readme(ROOT / document, study, table(study)):
                print(f"{document}: {study} written anew")


if __name__ == "__main__":
    main()
