"""The tables of docs/records.md, and the README's sentence: our records, those of others, and how ours were found."""

import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from benchmarks.scaling_tables import measured_findings, noted, spread
from pocketvit.config.yaml_text import read_yaml
from pocketvit.errors import InputError
from pocketvit.files import read_json
from pocketvit.recipes import RECIPES
from pocketvit.report.text import count, counted, duration
from pocketvit.studies import load_study
from pocketvit.studies.analysis.findings import Finding
from pocketvit.studies.definition.choose import find_study
from pocketvit.studies.execution.launch import command_line
from pocketvit.studies.output.outputs import COST_NOTE, runs_text
from pocketvit.tables import ABSENT, ABSENT_YET, markdown_table, mean_and_spread

HERE = Path(__file__).parent
LEE = "[Lee et al. 2021](https://arxiv.org/abs/2112.13492)"
CCT = "[Hassani et al. 2021](https://github.com/SHI-Labs/Compact-Transformers)"
AIRBENCH = "[airbench](https://github.com/KellerJordan/cifar10-airbench)"


class Record(NamedTuple):
    """One of our rows."""

    name: str
    file: str  # of its study, in benchmarks/
    rules: str
    goal: str = ABSENT
    row: str = ""  # of the study; by default like the record
    measure: str = "test_accuracy"


CLASSES = "records/records.yaml"
RECORDS = (
    Record("best", "records/best.yaml", "at most 2.8 M parameters, 15 M images, two minutes on one H200", "96.5"),
    Record("speedrun", "records/speedrun.yaml", "any size; as few seconds as possible, at most 20", "94.0"),
    Record("minute", "minute.yaml", "a minute", "95.5"),
    Record("self-supervised", CLASSES, "starts from a model that learned without labels; 30 M images in all"),
    Record("convolution", CLASSES, "with convolutions, at most 4 M parameters", "97.5"),
    Record(
        "flip averaging",
        "records/best.yaml",
        "`best`, by the mean of the logits of an image and its mirror image",
        row="best",
        measure="test_accuracy_tta",
    ),
    Record("small", CLASSES, "at most 0.7 M parameters, the paper's width of 96", "95.0"),
)


class Height(NamedTuple):
    """What others published of CIFAR-10, without other images unless it says so."""

    method: str
    params: str
    budget: str
    accuracy: str
    source: str
    plain: bool = False
    """Without convolutions and pre-training."""


HEIGHTS = (
    Height("the paper's baseline", "2.70 M", "15 M images", "93.65", "Wu 2025", plain=True),
    Height("ViT", "2.8 M", "15 M images", "93.58", LEE, plain=True),
    Height("SL-ViT: shifted patches, locality attention", "2.9 M", "15 M images", "94.53", LEE, plain=True),
    Height(
        "ViT, started by DINO",
        "2.8 M",
        "200 epochs without labels, then 15 M images",
        "96.41",
        "[Gani et al. 2022](https://arxiv.org/abs/2210.07240)",
    ),
    Height(
        "ViT, started by a masked autoencoder",
        "below 3.65 M",
        "not known to us",
        "96.41, second-hand",
        "[2402.03752](https://arxiv.org/abs/2402.03752)",
    ),
    Height(
        "ViT-Tiny with depth-wise convolutions",
        "5.5 M",
        "15 M images",
        "96.41",
        "[Zhang et al. 2025](https://arxiv.org/abs/2407.19394)",
    ),
    Height("CCT-7/3×1: a stem of convolutions", "3.76 M", "15 M images", "96.53", CCT),
    Height("the same", "3.76 M", "75 M images", "97.48", CCT),
    Height("the same", "3.76 M", "250 M images", "98.00", CCT),
    Height("airbench94, a CNN, averaged at test", ABSENT, "2.59 s on an A100", "94.0", AIRBENCH),
    Height(
        "the same race, July 2026",
        ABSENT,
        "1.83 s",
        "94.0",
        "[cifar-10-speedrun](https://github.com/fulcrumresearch/cifar-10-speedrun)",
    ),
    Height("airbench96, a CNN, averaged at test", ABSENT, "27.3 s on an A100", "96.0", AIRBENCH),
)
PLAIN = max(float(height.accuracy) for height in HEIGHTS if height.plain)  # %


def records(results: Path) -> str:
    """Our rows: accuracy, seconds, size and command, with notes."""
    found = {record: _finding(record, results) for record in RECORDS}
    rows = [_row(record, finding, _clock(record, results)) for record, finding in found.items()]
    note = (
        "Accuracy on the test images after the last step, mean ± standard deviation over n seeds (n − 1). Whole command: "
        "from starting the program to the result. Parameters: at inference. Images: all that a model has learned from. "
        f"{COST_NOTE}"
    )
    return noted(rows, [finding.results if finding else [] for finding in found.values()], [note, *_clocks(results)])


def heights() -> str:
    """What others published."""
    rows = [
        {
            "method": height.method,
            "convolutions or pre-training": "no" if height.plain else "yes",
            "parameters": height.params,
            "trained for": height.budget,
            "accuracy (%)": height.accuracy,
            "source": height.source,
        }
        for height in HEIGHTS
    ]
    return markdown_table(rows, list(rows[0]))


def record_now(results: Path) -> str:
    """The best model without convolutions and pre-training, in a sentence: the paper's with Muon until `best` has runs."""
    best, what = _finding(RECORDS[0], results), ", `pocketvit train best`,"
    if best is None or not best.results:
        study = find_study("paper-fig6")
        best = next(finding for finding in measured_findings(study, results) if finding.row == "muon")
        config = next(row.config for row in study.rows if row.name == "muon")
        what = f", the paper's model trained by Muon (`{shlex.join(command_line(config))}`),"
    runs = best.results
    if not runs:
        return f"{ABSENT_YET.capitalize()}."
    costs = [
        counted(len(runs), "seed"), f"{fmean(run.images_seen for run in runs) / 1e6:.1f} million images",
        f"{count(runs[0].num_params)} parameters", f"{duration(best.train_s or 0)} on one {runs[0].device}",
    ]  # fmt: skip
    said = f"Our best{what} reaches {spread(best, 'test_accuracy')} % on CIFAR-10's test images ({', '.join(costs)})."
    if 100 * fmean(run.test_accuracy for run in runs) > PLAIN:
        said += (
            " Of others with fewer than 4 million parameters, without convolutions, pre-training and other images, the best that "
            f"we know of has {PLAIN:.2f} % ({LEE})."
        )
    return said


@cache
def _finding(record: Record, results: Path) -> Finding | None:
    """What was measured of a record; None if its recipe has not been chosen."""
    file = HERE / record.file
    if read_yaml(file, "study")["recipe"] not in RECIPES:
        return None
    return next(one for one in measured_findings(load_study(file), results) if one.row == (record.row or record.name))


def _clock(record: Record, results: Path) -> Mapping[str, Any] | None:
    """The file of benchmarks/speedrun.py for a recipe; None if there is none.

    Raises:
        InputError: it timed something else.
    """
    file = results / "warm" / f"{record.name}.json"
    if not file.is_file():
        return None
    content = read_json(file)
    if content["recipe"] != record.name or content["set"]:
        raise InputError(f"{file} timed {content['recipe']} with {content['set']}, not the recipe {record.name}")
    return content


def _row(record: Record, finding: Finding | None, clock: Mapping[str, Any] | None) -> dict[str, str]:
    """A row of `records` by column."""
    runs = finding.results if finding else []
    row = {
        "record": f"`{record.name}`" if record.name in RECIPES else record.name,
        "rules": record.rules,
        "accuracy (%)": ABSENT_YET,
        "goal (%)": record.goal,
        "n": runs_text(finding) if finding else ABSENT,
    }
    row |= dict.fromkeys(("training time", "whole command", "parameters", "images", "command"), ABSENT)
    if finding and runs:
        by_recipe = record.name in RECIPES
        only = "" if by_recipe else f" --only {finding.row}"
        row |= {
            "accuracy (%)": spread(finding, record.measure),
            "training time": ABSENT if finding.train_s is None else duration(finding.train_s),
            "whole command": duration(fmean(run.total_s for run in runs)),
            "parameters": count(fmean(run.num_params for run in runs)),
            "images": f"{fmean(run.images_total or run.images_seen for run in runs) / 1e6:.1f} M",
            "command": f"`pocketvit train {record.name}`"
            if by_recipe
            else f"`pocketvit study benchmarks/{record.file}{only}`",
        }
    if clock:
        row |= {
            "accuracy (%)": mean_and_spread([100 * run["test_accuracy"] for run in clock["runs"]]),
            "n": str(len(clock["runs"])),
            "training time": f"{mean_and_spread([run['seconds'] for run in clock['runs']])} s, warm",
        }
    return row


def _clocks(results: Path) -> list[str]:
    """How the rows with a clock of their own were timed."""
    return [
        f"`{record.name}` is timed warm on {clock['device']}, PyTorch {clock['versions']['torch']}, by `{clock['command']}`; its "
        "whole command is that of a cold run."
        for record in RECORDS
        if (clock := _clock(record, results))
    ]
