"""Regenerate docs/paper.md from results/, and draw its figures.

    python -m benchmarks.paper [--data DIR]

Figure 6 is drawn if its study has results, Figure 5 if the real CIFAR-10 is given. Figure 4 is the picture from
`pocketvit profile paper`, stored as docs/images/paper-fig4.png.
"""

import argparse
import base64
import io
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from PIL import Image

from pocketvit.config import override
from pocketvit.data import open_splits
from pocketvit.recipes import recipe
from pocketvit.report.pictures import filter_sheet_uri
from pocketvit.report.study_curves import mean_curve
from pocketvit.training.progress import SilentReporter
from pocketvit.training.trainer import Trainer
from reproduction import Evidence, paper_page, read_evidence

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
ENLARGED = 12
"""Enlargement of the filters in Figure 5."""


def draw_figure5(data: str, path: Path) -> None:
    """Draw the initial whitening filters of a run; nothing is trained."""
    whitening = {"data.source": data, "model.patch_init": "whitening", "model.depth": 1, "train.device": "cpu"}
    config = override(recipe("paper"), whitening)
    filters = Trainer(config, open_splits(config.data), torch.device("cpu"), SilentReporter()).filters  # (F, C, p, p)
    uri = filter_sheet_uri(filters.permute(0, 2, 3, 1).numpy())
    sheet = Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2])))
    width, height = sheet.size
    sheet.resize((ENLARGED * width, ENLARGED * height), Image.Resampling.NEAREST).save(path, optimize=True)


def draw_figure6(evidence: Evidence, path: Path) -> None:
    """Draw accuracy over training time for each optimizer that has results."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    counts = evidence.hardware("paper-fig6").counts
    for (study, row), runs in evidence.runs.items():
        timed = [result.curve for result in runs.values() if counts(result)]
        curve = mean_curve([result.curve for result in runs.values()], "test", timed)
        if study == "paper-fig6" and curve:
            mean, low, high = ([100 * y for y in ys] for ys in (curve.mean, curve.low, curve.high))
            axes.plot(curve.train_s, mean, label=f"{row} (n = {len(runs)})")
            axes.fill_between(curve.train_s, low, high, alpha=0.2)
    if axes.lines:
        axes.set(xlabel="training time (s)", ylabel="test accuracy (%)")
        axes.legend(frameon=False)
        axes.grid(alpha=0.3)
        figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the real CIFAR-10, for Figure 5")
    arguments = parser.parse_args()
    if arguments.data:
        draw_figure5(arguments.data, IMAGES / "paper-fig5.png")
    draw_figure6(read_evidence(ROOT / "results"), IMAGES / "paper-fig6.png")
    (ROOT / "docs" / "paper.md").write_text(paper_page(ROOT / "results", IMAGES), encoding="utf-8")


if __name__ == "__main__":
    main()
