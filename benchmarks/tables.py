"""Regenerate all tables of the README and the docs from results/ and the configuration: `python -m benchmarks.tables`."""

import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.choices import choices_table
from benchmarks.fast_tables import both_designs, cpu_speed, kernels_accuracy, persistent_accuracy, step_kernels
from benchmarks.field_tables import SECTIONS, fields_table
from benchmarks.finetune_tables import finetuning
from benchmarks.inference_tables import inference_speed
from benchmarks.minute_tables import minute_compared, search
from benchmarks.neighbours_tables import CONVOLUTIONAL, IDEAS, costs, neighbours_in_short, outcomes
from benchmarks.peers_tables import peers_table
from benchmarks.records_tables import heights, record_now, records
from benchmarks.run_tables import PublishedRow, results_table, update_readme
from benchmarks.scaling_tables import half_batch, scaling_accuracy, scaling_cost, scaling_rows, scaling_speed
from benchmarks.simulation_tables import simulated_errors, simulated_power, simulated_seeds
from benchmarks.speed import CHOICES
from benchmarks.trust import coverage_table, fuzz_table
from pocketvit.bench.table import speed_table
from pocketvit.config import override
from pocketvit.data.formats.registry import FORMATS
from pocketvit.data.sources import known_sources
from pocketvit.files import read_json
from pocketvit.studies import load_study
from pocketvit.studies.execution.launch import command_line
from pocketvit.tables import markdown_table
from reproduction import decided_claims

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
RECORDS = {name: f"records/{name}.yaml" for name in ("best", "speedrun")}
TRAINED = {name: file for name, file in RECORDS.items() if (RESULTS / name).is_dir()}
"""Of these, the recipes that are chosen and trained."""
STUDIES = {
    "paper-baseline": "paper_baseline.yaml",
    "learning-rate": "learning_rate.yaml",
    "design-space": "design_space.yaml",
    "minute": "minute.yaml",
    "digits": "digits.yaml",
    **TRAINED,
}
"""Folder under results/, and the study file in benchmarks/ for its rows."""
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
    )
}
ELSEWHERE = {"paper-baseline": {"paper": "paper-table2/baseline-s*.json"}}
"""By folder, more files of its rows under results/: the same configuration in another study."""
PLACES = {
    "README.md": ("reached", "record-now", "peers-cpu", "neighbours-short", "paper-claims"),
    "docs/design-space.md": ("design-space",),
    "docs/configuration.md": tuple(f"fields-{section}" for section in SECTIONS),
    "docs/paper-baseline.md": ("learning-rate", "paper-baseline"),
    "docs/data.md": ("sets", "formats"),
    "SECURITY.md": ("fuzz",),
    "CONTRIBUTING.md": ("coverage",),
    "docs/neighbours.md": ("neighbours", "neighbours-convolutional", "neighbours-costs"),
    "docs/records.md": ("record-now", "records", "heights", "best-search", "speedrun-search"),
    "docs/minute.md": ("minute", "minute-compared", "minute-search"),
    "docs/fast.md": (
        "paper-table1",
        "step-kernels",
        "both-designs",
        "speed-choices",
        "speed-cpu",
        "kernels",
        "persistent-accuracy",
    ),
    "docs/export.md": ("inference",),
    "docs/starting.md": ("finetune",),
    "docs/reading.md": ("simulated-errors", "simulated-power", "simulated-seeds"),
    "docs/scaling.md": ("scaling-cost", "scaling-speed", "half-batch", "scaling-accuracy", "scaling-rows"),
}
"""The tables of each document."""


def study_table(*studies: str) -> str:
    """The table of one or more studies, with the commands that repeat its rows."""
    commands = {}
    for study in studies:
        for cell in load_study(ROOT / "benchmarks" / STUDIES[study]).cells():
            text = shlex.join(command_line(override(cell.config, {"seed": 0})))
            commands[cell.row] = f"{text} --seed SEED" if cell.row in commands else text
    published = [row for study in studies for row in PUBLISHED.get(study, ())]
    files = {row: RESULTS.glob(names) for study in studies for row, names in ELSEWHERE.get(study, {}).items()}
    folders = (RESULTS / study for study in studies)
    return results_table(*folders, published=published, commands=commands, elsewhere=files)


def bench_table() -> str:
    """The result of `pocketvit bench paper`."""
    return speed_table(read_json(RESULTS / "paper-table1" / "bench.json"))


def speed_of_choices() -> str:
    """The result of `benchmarks/speed.py`."""
    files = {name: RESULTS / "speed" / f"{name}.json" for name in CHOICES}
    return choices_table({name: read_json(file) if file.is_file() else None for name, file in files.items()})


def formats() -> str:
    """The supported data formats."""
    rows = [{"format": f"`{known.name}`", "what is read": known.description} for known in FORMATS]
    return markdown_table(rows, list(rows[0])).replace("<", "&lt;").replace("*", r"\*")


def sets() -> str:
    """The data sets known by name."""
    rows = [
        {
            "name": f"`{known.name}`",
            "images": known.description,
            "download": known.size,
            "licence": known.licence,
            "train with": f"`{known.train.removeprefix('pocketvit ')}`",
        }
        for known in known_sources()
    ]
    return markdown_table(rows, list(rows[0])).replace(
        "---:", "---"
    )  # these are sentences, though they begin with a number


OTHERS: dict[str, Callable[[], str]] = {
    "formats": formats,
    "sets": sets,
    "coverage": lambda: coverage_table(RESULTS / "coverage" / "cpu.json"),
    "fuzz": lambda: fuzz_table(RESULTS / "fuzz" / "cpu.json"),
    "reached": lambda: study_table("paper-baseline", *TRAINED, "minute", "digits"),
    "minute-compared": lambda: minute_compared(RESULTS),
    **{f"{name}-search": partial(search, RESULTS, f"{name}_search.yaml") for name in ("minute", "best", "speedrun")},
    "record-now": lambda: record_now(RESULTS),
    "records": lambda: records(RESULTS),
    "heights": heights,
    "neighbours-short": lambda: neighbours_in_short(RESULTS),
    "neighbours": lambda: outcomes(RESULTS, IDEAS),
    "neighbours-convolutional": lambda: outcomes(RESULTS, CONVOLUTIONAL),
    "neighbours-costs": lambda: costs(RESULTS),
    "paper-claims": lambda: decided_claims(RESULTS),
    "paper-table1": bench_table,
    "persistent-accuracy": lambda: persistent_accuracy(RESULTS),
    "both-designs": lambda: both_designs(RESULTS / "persistent" / "steps.json", RESULTS / "speed" / "paper.json"),
    "step-kernels": lambda: step_kernels(
        RESULTS / "paper-fig4" / "profile.json", RESULTS / "paper-table1" / "bench.json"
    ),
    "speed-choices": speed_of_choices,
    "speed-cpu": lambda: cpu_speed(RESULTS / "speed" / "cpu.json"),
    "inference": lambda: inference_speed(RESULTS / "inference" / "cpu.json"),
    "peers-cpu": lambda: peers_table(RESULTS / "peers" / "cpu.json"),
    "finetune": lambda: finetuning(RESULTS),
    "kernels": lambda: kernels_accuracy(RESULTS),
    "scaling-cost": lambda: scaling_cost(RESULTS),
    "scaling-speed": lambda: scaling_speed(RESULTS / "scaling" / "speed"),
    "half-batch": lambda: half_batch(RESULTS / "persistent" / "half-batch.json"),
    "scaling-accuracy": lambda: scaling_accuracy(RESULTS),
    "scaling-rows": lambda: scaling_rows(RESULTS),
    "simulated-errors": lambda: simulated_errors(RESULTS / "simulations"),
    "simulated-power": lambda: simulated_power(RESULTS / "simulations"),
    "simulated-seeds": lambda: simulated_seeds(RESULTS / "simulations"),
    **{f"fields-{section}": partial(fields_table, section) for section in SECTIONS},
}
"""The tables that are not of a single study with its own folder."""


def table(name: str) -> str:
    """One of the tables."""
    return OTHERS[name]() if name in OTHERS else study_table(name)


def main() -> None:
    for document, names in PLACES.items():
        for name in names:
            if update_readme(ROOT / document, name, table(name)):
                print(f"{document}: {name} updated")


if __name__ == "__main__":
    main()
