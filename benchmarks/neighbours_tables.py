"""The tables of docs/neighbours.md: ideas of other papers beside what those papers say of them."""

from collections.abc import Collection
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from benchmarks.scaling_tables import measured_findings, noted, spread
from pocketvit.report.text import counted, listed
from pocketvit.studies.analysis.findings import Finding
from pocketvit.studies.analysis.verdict import interval
from pocketvit.studies.definition.choose import find_study
from pocketvit.studies.output.outputs import notes, table_row
from pocketvit.tables import ABSENT, ABSENT_YET, markdown_table

STUDY = "neighbours"


class Idea(NamedTuple):
    """What a row is, and what was published of it."""

    what: str
    source: str
    gain: str = ABSENT  # in points, and on what


LEE = "[Lee et al. 2021](https://arxiv.org/abs/2112.13492)"
SPEEDRUN = "[modded-nanogpt](https://github.com/KellerJordan/modded-nanogpt)"
DINO = "[Caron et al. 2021](https://arxiv.org/abs/2104.14294)"
MAE = "[He et al. 2022](https://arxiv.org/abs/2111.06377)"
SL_VIT = "+0.95 for locality attention and shifted patches together (ViT 93.58 → SL-ViT 94.53)"
IDEAS = {
    "muon": Idea("the baseline: the paper's model, trained by Muon", "Jordan et al. 2024"),
    "adamw": Idea("AdamW in place of Muon", "Wu 2025"),
    "linear": Idea("linear attention", "[Katharopoulos et al. 2020](https://arxiv.org/abs/2006.16236)"),
    "sparse": Idea("sparse attention", "[Child et al. 2019](https://arxiv.org/abs/1904.10509)"),
    "locality": Idea("locality attention", LEE, SL_VIT),
    "shifted-patches": Idea("shifted patch tokens", LEE, SL_VIT),
    "cls-per-class": Idea("a CLS token for each class", "[Xu et al. 2024](https://arxiv.org/abs/2308.03005)"),
    "sincos": Idea("positions of sines and cosines", "[Vaswani et al. 2017](https://arxiv.org/abs/1706.03762)"),
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
    "dino": Idea("DINO, without labels; the accuracy is that of a classifier trained alongside", DINO),
    "dino-probe": Idea("a linear probe of DINO's model", DINO),
    "dino-start": Idea(
        "a start from DINO's model",
        "[Gani et al. 2022](https://arxiv.org/abs/2210.07240)",
        "+2.8 (ViT 93.58 → 96.41), 200 more epochs",
    ),
    "mae": Idea("a masked autoencoder, without labels; the accuracy is that of a classifier trained alongside", MAE),
    "mae-probe": Idea("a linear probe of the autoencoder's model", MAE),
    "mae-start": Idea("a start from the autoencoder's model", MAE),
    "cautious-decay": Idea(
        "cautious weight decay",
        "[Chen et al. 2025](https://arxiv.org/abs/2510.12402)",
        "2,720 → 2,690 steps of a language model (modded-nanogpt)",
    ),
    "tail-average": Idea(
        "an average of the weights of the last steps", SPEEDRUN, "2,750 → 2,720 steps of a language model"
    ),
    "soap-muon": Idea("SOAP-Muon", SPEEDRUN, "3,250 → 2,750 steps of a language model"),
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

ALL = IDEAS | CONVOLUTIONAL  # in the order of the tables
SHOWN, SHORT_COLUMNS = 5, ("idea", "published", "against", "difference", "n", "verdict")  # of the README's table
COSTS_NOTE = (
    "Images used: those of training, with those of the model that a run starts or learns from. Parameters of a linear "
    "probe: those that learn. Test: after the last step; with flips: by the mean of the logits of an image and its mirror "
    "image."
)


def outcomes(results: Path, ideas: Collection[str]) -> str:
    """What rows gain, beside what was published of it.

    Args:
        results: the folder of all results; runs are found anywhere in it.
        ideas: names of the rows.
    """
    found = _found(results)
    rows = [_outcome(name, found[name]) for name in ideas]
    return markdown_table(rows, list(rows[0]))


def costs(results: Path) -> str:
    """What measured rows cost, their accuracy on the test images, and how to read all tables of the study."""
    found = _found(results)
    done = [name for name in ALL if found[name].results]
    if not done:
        return f"{ABSENT_YET.capitalize()}."
    rows = [_cost(name, found[name]) for name in done]
    texts = [COSTS_NOTE, " ".join(notes(find_study(STUDY), list(found.values()))[2:])]  # the page says the first two
    return noted(rows, [found[name].results for name in done], texts)


def neighbours_in_short(results: Path) -> str:
    """The rows that differ most, and how many are open; for the README."""
    found = _found(results)
    compared = {name: one.comparison.difference for name, one in found.items() if one.comparison}
    gains = {name: gain for name, gain in compared.items() if gain is not None}
    waiting = counted(len(compared) - len(gains), "idea")
    if not gains:
        return f"No difference is measured yet; {waiting} are open."
    largest = sorted(gains, key=lambda name: -abs(gains[name]))[:SHOWN]
    rows = [_outcome(name, found[name]) for name in sorted(largest, key=lambda name: -gains[name])]
    which = f"The {SHOWN} largest of {len(gains)} differences" if len(gains) > SHOWN else "Differences"
    text = f"{which}, in points on held-out images, where `muon` has {spread(found['muon'], 'val_accuracy')} %."
    text += f" Not measured yet: {waiting}." * (len(gains) < len(compared))
    return f"{markdown_table(rows, SHORT_COLUMNS)}\n\n{text}"


@cache
def _found(results: Path) -> dict[str, Finding]:
    """The findings of the study by row; an idea must be there for each."""
    found = {finding.row: finding for finding in measured_findings(find_study(STUDY), results)}
    if missing := found.keys() ^ ALL.keys():
        raise ValueError(f"rows and ideas differ: {', '.join(sorted(missing))}")
    return found


def _outcome(name: str, finding: Finding) -> dict[str, str]:
    """A row of `outcomes` by column."""
    idea, told, comparison = ALL[name], table_row(finding), finding.comparison
    ends = f" ({interval(comparison.interval)})" if comparison and comparison.interval else ""
    return {
        "row": f"`{name}`",
        "idea": f"{idea.what} ({idea.source})",
        "published": idea.gain,
        "held out (%)": spread(finding, "val_accuracy") if finding.results else ABSENT_YET,
        "n": told["n"],
        "against": told["against"],
        "difference": told["difference"] + ends,
        "verdict": told["verdict"],
    }


def _cost(name: str, finding: Finding) -> dict[str, str]:
    """A row of `costs` by column."""
    told = table_row(finding)
    used = [result.images_total or result.images_seen for result in finding.results]
    return {
        "row": f"`{name}`",
        **{column: told[column] for column in ("images/s", "training time", "parameters", "memory (GiB)")},
        "images used": f"{fmean(used) / 1e6:.1f} M",
        "kernels": listed(sorted({result.kernels or "unknown" for result in finding.results})),
        "test (%)": spread(finding, "test_accuracy"),
        "with flips (%)": spread(finding, "test_accuracy_tta"),
    }
