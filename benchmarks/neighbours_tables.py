"""The table of docs/neighbours.md: ideas of other papers beside what those papers say of them."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from benchmarks.scaling_tables import measured_findings, noted, spread
from pocketvit.runs.result import RunResult
from pocketvit.studies.analysis.findings import Finding
from pocketvit.studies.definition.choose import find_study
from pocketvit.studies.output.outputs import notes, table_row
from pocketvit.tables import ABSENT, ABSENT_YET

STUDY = "neighbours"


class Idea(NamedTuple):
    """What a row is, and what was published of it."""

    what: str
    source: str
    gain: str = ABSENT  # in points, and on what


LEE = "[Lee et al. 2021](https://arxiv.org/abs/2112.13492)"
SPEEDRUN = "[modded-nanogpt](https://github.com/KellerJordan/modded-nanogpt)"
DINO = "[Caron et al. 2021](https://arxiv.org/abs/2104.14294)"
SL_VIT = "+0.95 with the other of the two (ViT 93.58 → SL-ViT 94.53)"
IDEAS = {
    "muon": Idea("the baseline: the paper's model, trained by Muon", "Jordan et al. 2024"),
    "adamw": Idea("AdamW in place of Muon", "Wu 2025"),
    "linear": Idea("linear attention", "[Katharopoulos et al. 2020](https://arxiv.org/abs/2006.16236)"),
    "sparse": Idea("sparse attention", "[Child et al. 2019](https://arxiv.org/abs/1904.10509)"),
    "locality": Idea("locality attention", LEE, SL_VIT),
    "shifted-patches": Idea("shifted patch tokens", LEE, SL_VIT),
    "cls-per-class": Idea("a CLS token for each class", "[Xu et al. 2024](https://arxiv.org/abs/2308.03005)"),
    "sincos": Idea("positions of sines and cosines, for the next row", "Vaswani et al. 2017"),
    "mimetic": Idea(
        "mimetic initialization",
        "[Trockman and Kolter 2023](https://arxiv.org/abs/2305.09828)",
        "over +5 for a plain ViT on CIFAR-10",
    ),
    "relative-positions": Idea(
        "a loss on relative positions",
        "[Liu et al. 2021](https://arxiv.org/abs/2106.03746)",
        "+24 for Swin-T in 100 epochs (59.47 → 83.89)",
    ),
    "distilled": Idea(
        "distilled from the baseline's run by a token", "[Touvron et al. 2021](https://arxiv.org/abs/2012.12877)"
    ),
    "dino": Idea("DINO, without labels; its accuracy is a linear probe's", DINO),
    "dino-probe": Idea("a linear probe of DINO's model, trained anew", DINO),
    "dino-start": Idea(
        "a start from DINO's model",
        "[Gani et al. 2022](https://arxiv.org/abs/2210.07240)",
        "+2.8 (ViT 93.58 → 96.41), 200 more epochs",
    ),
    "cautious-decay": Idea("cautious weight decay", "[Chen et al. 2025](https://arxiv.org/abs/2510.12402)"),
    "tail-average": Idea("an average of the run's tail", SPEEDRUN),
    "soap-muon": Idea("SOAP-Muon", SPEEDRUN),
    "alternating-flips": Idea("alternating flips", "[Jordan 2024](https://arxiv.org/abs/2404.00498)"),
    "patch-dropout": Idea("patch dropout", "[Liu et al. 2022](https://arxiv.org/abs/2208.07220)"),
    "small-first": Idea("smaller images first", "[Jordan 2024](https://arxiv.org/abs/2404.00498)"),
}
CONVOLUTIONAL = {
    "conv-stem": Idea(
        "CCT's convolutional stem",
        "[Hassani et al. 2021](https://arxiv.org/abs/2104.05704)",
        "96.53 % in 300 epochs, CCT-7/3×1 with 256 tokens; here 3×2, 64 tokens",
    ),
    "depthwise": Idea(
        "depth-wise convolutions beside the blocks",
        "[Zhang et al. 2025](https://arxiv.org/abs/2407.19394)",
        "+2.4 for ViT-Tiny on CIFAR-10",
    ),
}

ALL = IDEAS | CONVOLUTIONAL  # in the order of the table


def neighbours(results: Path) -> str:
    """All rows of the study, those with convolutions last, with notes."""
    study = find_study(STUDY)
    found = {finding.row: finding for finding in measured_findings(study, results)}
    if missing := found.keys() ^ ALL.keys():
        raise ValueError(f"rows and ideas differ: {', '.join(sorted(missing))}")
    rows = [_row(name, found[name]) for name in ALL]
    reading = [
        "`conv-stem` and `depthwise` have convolutions; the others are plain vision transformers beyond their patches. Held "
        "out: accuracy on 5,000 training images after the last step. Test: opened once, after the last step; with flips: by "
        "the mean of the logits of an image and its mirror image. Images used: with those of the model that a run starts or "
        f"learns from. To run: `pocketvit study {STUDY}`.",
        " ".join(notes(study, list(found.values()))[2:]),
    ]
    return noted(rows, [found[name].results for name in ALL], reading)


def neighbours_in_short(results: Path) -> str:
    """The rows whose difference is told, in a sentence; for the README."""
    found = measured_findings(find_study(STUDY), results)
    if not any(finding.results for finding in found):
        return f"{ABSENT_YET.capitalize()}."
    told = {kind: [ALL[finding.row].what for finding in found if finding.kind == kind] for kind in ("helps", "hurts")}
    open_rows = sum(finding.kind in ("equal", "untold") for finding in found)
    helps, hurts = (", ".join(names) or "none" for names in told.values())
    return f"Helps: {helps}. Hurts: {hurts}. For {open_rows} others, these seeds show no difference."


def _row(name: str, finding: Finding) -> dict[str, str]:
    """A row by column."""
    idea, told = ALL[name], table_row(finding)
    return {
        "row": f"`{name}`",
        "idea": idea.what,
        "source": idea.source,
        "published": idea.gain,
        "held out (%)": spread(finding, "val_accuracy"),
        "n": told["n"],
        **{column: told[column] for column in ("against", "difference", "95 % CI", "verdict")},
        "test (%)": spread(finding, "test_accuracy"),
        "with flips (%)": spread(finding, "test_accuracy_tta"),
        **{column: told[column] for column in ("images/s", "training time", "parameters", "memory (GiB)")},
        "images used": _images(finding.results),
        "kernels": ", ".join(sorted({result.kernels or "unknown" for result in finding.results})) or ABSENT,
    }


def _images(results: Sequence[RunResult]) -> str:
    """Training images of a run, in millions."""
    used = [result.images_total or result.images_seen for result in results]
    return f"{fmean(used) / 1e6:.1f} M" if used else ABSENT
