"""Draw 600 small images of five shapes, `shapes/<class>/*.png`: a data set to try things on.

python docs/examples/draw_shapes.py [FOLDER]
"""

import math
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CORNERS = {"triangle": (3, 1.0), "square": (4, 1.0), "hexagon": (6, 1.0), "star": (10, 0.45), "circle": (60, 1.0)}
"""Of each class, the number of corners, and how far every second one is from the center, relative to the others."""
SIDE, FINER = 32, 4  # pixels; drawn FINER times as large, for smooth edges


def draw(shape: str, rng: np.random.Generator) -> Image.Image:
    """One shape of random size, place, direction and colors."""
    corners, inner = CORNERS[shape]
    radius = rng.uniform(7, 12)
    x, y = (rng.uniform(radius, SIDE - radius) for _ in range(2))
    start = rng.uniform(0, 2 * math.pi)
    ends = []
    for k in range(corners):
        r, angle = radius * (inner if k % 2 else 1.0), start + 2 * math.pi * k / corners
        ends.append((FINER * (x + r * math.cos(angle)), FINER * (y + r * math.sin(angle))))
    colors = [tuple(rng.integers(low, low + 110, 3).tolist()) for low in (0, 145)]  # a dark and a light one
    rng.shuffle(colors)
    image = Image.new("RGB", (FINER * SIDE, FINER * SIDE), colors[0])
    ImageDraw.Draw(image).polygon(ends, fill=colors[1])
    return image.resize((SIDE, SIDE), Image.Resampling.BOX)


def main(folder: str = "shapes", per_class: int = 120) -> None:
    rng = np.random.default_rng(0)
    for shape in CORNERS:
        (Path(folder) / shape).mkdir(parents=True, exist_ok=True)
        for n in range(per_class):
            draw(shape, rng).save(Path(folder) / shape / f"{n:03}.png")


if __name__ == "__main__":
    main(*sys.argv[1:2])
