"""What a model looked at in some images: a self-contained page, and a picture of the first ones.

Shapes: H W pixels; rows and columns of patches.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from pocketvit.files import write_atomically
from pocketvit.report.pictures import COLOURS, map_uri, picture, scaled
from pocketvit.report.templating import page_environment

MOST_DRAWN = 20  # images in the picture; the page has all
MOST_CLASSES = 5  # most probable classes that the page names for an image
OPACITY = 0.7  # of a map on its image, as in style.css
TILE_INCHES, DPI = 1.15, 110
INK, MUTED = "#1d2126", "#5b626b"


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What the model answered on an image, and why."""

    file: str
    image: np.ndarray  # uint8, (H, W, 3)
    probabilities: Mapping[str, float]  # by class name
    maps: Mapping[str, np.ndarray]  # (rows, columns) each, by name

    @property
    def best(self) -> list[tuple[str, float]]:
        """The most probable classes with their probabilities, the predicted one first."""
        return sorted(self.probabilities.items(), key=lambda item: -item[1])[:MOST_CLASSES]


def write_explanations(folder: Path, run: str, explanations: Sequence[Explanation]) -> tuple[Path, Path]:
    """Write `explain.html` and `explain.png` into a folder, which is created.

    Args:
        run: how the page names the model.
        explanations: at least one, all with the same maps.
    Returns:
        the paths of both.
    Raises:
        InputError: they cannot be written.
    """
    page, drawing = folder / "explain.html", folder / "explain.png"
    write_atomically(page, render(run, explanations).encode(errors="backslashreplace"))
    write_atomically(drawing, draw(explanations[:MOST_DRAWN]))
    return page, drawing


def render(run: str, explanations: Sequence[Explanation]) -> str:
    """The page as HTML."""
    images = [
        {
            "file": one.file,
            "best": one.best,
            **picture(one.image),
            "maps": [(name, map_uri(values), _span(values)) for name, values in one.maps.items()],
        }
        for one in explanations
    ]
    return page_environment().get_template("explain.html.j2").render(run=run, images=images)


def _span(values: np.ndarray) -> str:
    """The least and the greatest value of a map: three decimals; two digits each, if these would hide the greatest."""
    least, most = float(values.min()), float(values.max())
    return f"{least:.3f} to {most:.3f}" if most >= 0.01 else f"{least:.2g} to {most:.2g}"


def draw(explanations: Sequence[Explanation]) -> bytes:
    """A PNG with a row for each image: itself, with its prediction, and its maps on it."""
    columns = 1 + len(explanations[0].maps)
    figure = Figure(figsize=(TILE_INCHES * columns, 1.3 * TILE_INCHES * len(explanations)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(explanations), columns, squeeze=False)
    for line, one in zip(grid, explanations, strict=True):
        height, width = one.image.shape[:2]
        grey = np.asarray(Image.fromarray(one.image).convert("L"))
        (label, share), *_ = one.best
        line[0].imshow(one.image)
        line[0].set_title(f"{label:.14} {share:.0%}", fontsize=9, color=INK, parse_math=False)
        for axes, (name, values) in zip(line[1:], one.maps.items(), strict=True):
            axes.imshow(grey, cmap="gray", vmin=0, vmax=255)
            over = {"cmap": COLOURS, "vmin": 0, "vmax": 1, "alpha": OPACITY, "interpolation": "nearest"}
            axes.imshow(scaled(values), extent=(-0.5, width - 0.5, height - 0.5, -0.5), **over)
            axes.set_title(name, fontsize=9 if len(name) < 12 else 7.5, color=MUTED)
        for axes in line:
            axes.set_axis_off()
    file = BytesIO()
    with warnings.catch_warnings():  # the font lacks Chinese, Japanese and Korean letters; the page has them
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(file, format="png", dpi=DPI)
    return file.getvalue()
