"""The pictures of docs/vit.md, from a run on the digits: `python -m benchmarks.vit_pictures RUN [FOLDER]`.

pocketvit train digits --model.patch-size 2 --out runs/vit
python -m benchmarks.vit_pictures runs/vit
"""

import base64
import io
import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from pocketvit import load_dataset, load_model
from pocketvit.data import Dataset
from pocketvit.inference.trained_model import TrainedModel
from pocketvit.model import ViT
from pocketvit.report.explanations import Explanation, draw
from pocketvit.report.pictures import similarity_sheet_uri

OUT = Path(__file__).parents[1] / "docs" / "images"
ZOOM, GAP = 36, 12  # screen pixels for a pixel, and between patches


def patches_picture(image: np.ndarray, side: int) -> Image.Image:
    """An image (H, W, 3), and the square patches that it is cut into."""
    height, width = image.shape[:2]
    large, step = np.repeat(np.repeat(image, ZOOM, 0), ZOOM, 1), side * ZOOM
    rows, columns = height // side, width // side
    sheet = np.full((rows * (step + GAP), width * ZOOM + 5 * GAP + columns * (step + GAP), 3), 255, dtype=np.uint8)
    top = (sheet.shape[0] - height * ZOOM) // 2
    sheet[top : top + height * ZOOM, : width * ZOOM] = large
    left = width * ZOOM + 5 * GAP
    for r in range(rows):
        for c in range(columns):
            y, x = r * (step + GAP) + GAP // 2, left + c * (step + GAP)
            sheet[y : y + step, x : x + step] = large[r * step : (r + 1) * step, c * step : (c + 1) * step]
    return Image.fromarray(sheet)


def positions_picture(similarity: np.ndarray) -> Image.Image:
    """The report's picture of the similarity (P, P) of positions, in pixels that can be seen."""
    sheet = Image.open(io.BytesIO(base64.b64decode(similarity_sheet_uri(similarity).partition(",")[2])))
    return sheet.resize((12 * sheet.width, 12 * sheet.height), Image.Resampling.NEAREST)


def attention_picture(trained: TrainedModel, images: np.ndarray) -> bytes:
    """What the CLS token reads in each layer, in the mean over the heads, and the map weighted by gradients."""
    found = trained.attention_maps(images)
    by_layer = found.on_patches(found.weights.mean(2, keepdim=True))[:, :, 0, 0]  # (L, B, rows, columns)
    weighted = found.on_patches(found.gradient_weighted())[:, 0]  # (B, rows, columns)
    shares = found.logits.softmax(1)
    rows = []
    for i, image in enumerate(images):
        maps = {f"layer {n}": layer[i].numpy() for n, layer in enumerate(by_layer, start=1)}
        probabilities = dict(zip(trained.class_names, shares[i].tolist(), strict=True))
        rows.append(
            Explanation(
                file=str(i), image=image, probabilities=probabilities,
                maps=maps | {"gradient-weighted": weighted[i].numpy()},
            )
        )  # fmt: skip
    return draw(rows)


def features_picture(trained: TrainedModel, data: Dataset) -> Figure:
    """The CLS tokens of the test images in a plane, before and after training: the two directions of most variance."""
    torch.manual_seed(0)
    model = trained.model
    untrained = ViT(model.config, num_classes=model.num_classes, image_size=model.image_size)
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    before = TrainedModel(**vars(trained) | {"model": untrained.eval()})
    for axes, (title, each) in zip(
        figure.subplots(1, 2), {"before training": before, "after training": trained}.items(), strict=True
    ):
        features = each.features(data.test.images).numpy()  # (N, D)
        features = features - features.mean(0)
        plane = features @ np.linalg.svd(features, full_matrices=False)[2][:2].T  # (N, 2)
        for number, name in enumerate(trained.class_names):
            axes.scatter(*plane[data.test.labels == number].T, s=14, label=name)
        axes.set(title=title, xticks=[], yticks=[])
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def main(run: str, folder: str | None = None) -> None:
    out = Path(folder or OUT)
    trained, data = load_model(run), load_dataset("digits")
    chosen = [int(np.flatnonzero(data.test.labels == number)[0]) for number in (3, 4, 7)]
    images = data.test.images[chosen]
    patches_picture(images[0], trained.model.config.patch_size).save(out / "vit-patches.png", optimize=True)
    with np.load(Path(run) / "figures.npz") as figures:
        positions_picture(figures["position_similarity"]).save(out / "vit-positions.png", optimize=True)
    (out / "vit-attention.png").write_bytes(attention_picture(trained, images))
    features_picture(trained, data).savefig(out / "vit-features.png", dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:])
