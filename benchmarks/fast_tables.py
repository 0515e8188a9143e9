"""What docs/fast.md shows of results/ beside the benches: accuracy with either kind of kernels, and speed on a CPU."""

from math import sqrt
from pathlib import Path
from statistics import fmean, median

from scaling_tables import measured_findings, noted, run_cells, runs_of

from pocketvit.report import markdown_table
from pocketvit.report.runfolder import read_json
from pocketvit.report.text import count
from pocketvit.studies import load_study
from pocketvit.studies.findings import Finding
from pocketvit.studies.outputs import notes
from pocketvit.studies.verdict import points

KERNELS_FILE = Path(__file__).with_name("kernels.yaml")
TEST_IMAGES = 10_000
"""Of CIFAR-10."""
WHENCE = "Fused: the runs of `results/paper-baseline`; reference: `pocketvit study benchmarks/kernels.yaml`."


def kernels_accuracy(results: Path) -> str:
    """The paper's run with fused kernels and with plain PyTorch's, and how far apart they end.

    Args:
        results: the folder of all results; a run counts wherever in it it lies.
    """
    found = measured_findings(load_study(KERNELS_FILE), results)
    rows = [{"kernels": f"`{finding.row}`"} | run_cells(finding) for finding in found]
    note = " ".join([WHENCE, *notes(found)])
    return noted(rows, [runs_of(finding) for finding in found], [_beside_chance(*found), note])


def _beside_chance(fused: Finding, reference: Finding) -> str:
    """The difference of the means beside what the choice of the test images alone would scatter by."""
    if any(finding.count("done") < len(finding.cells) for finding in (fused, reference)):
        return "Whether the means lie within one binomial standard deviation is not measured yet."
    ours, theirs = fused.accuracy.mean, reference.accuracy.mean
    accuracy = fmean([ours, theirs])
    sigma, apart = sqrt(accuracy * (1 - accuracy) / TEST_IMAGES), abs(ours - theirs)
    return (
        f"One binomial standard deviation at {100 * accuracy:.2f} % on {count(TEST_IMAGES)} images is {points(sigma)} "
        f"points; the means lie {points(apart)} apart, {'within' if apart <= sigma else 'beyond'} it."
    )


def cpu_speed(file: Path) -> str:
    """Our step on a CPU beside timm's model, as `benchmarks/cpu_against_timm.py` measured it."""
    measured = read_json(file)
    rows, rounds = [], len(measured["rows"][0]["images_per_s"]["ours"])
    for row in measured["rows"]:
        speeds = row["images_per_s"]
        rows.append(
            {"model": row["recipe"], "batch size": str(row["batch_size"]),
             "ours, images/s": count(median(speeds["ours"])), "timm, images/s": count(median(speeds["timm"])),
             "ratio": f"{row['ratio']:.2f} ({row['ratio_min']:.2f} – {row['ratio_max']:.2f})"}
        )  # fmt: skip
    versions = f"PyTorch {measured['versions']['torch']}, timm {measured['timm']}"
    note = (
        f"{measured['device']}, {versions}, fp32. Images/s of training: medians over {rounds} rounds in turns. "
        "Ratio: the median over the rounds of ours to timm's, the least and the greatest in brackets."
    )
    return f"{markdown_table(rows, list(rows[0]))}\n\n{note}"
