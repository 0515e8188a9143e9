"""The recipe for images of one's own, on drawn shapes: few, of every size, in any place."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pocketvit.cli import parse_train
from pocketvit.training.progress import SilentReporter
from pocketvit.training.run import train


def draw(rng: np.random.Generator, corners: int) -> Image.Image:
    """A bright upright shape on a dark ground with noise: 40 to 160 pixels a side."""
    width, height = rng.integers(40, 161, 2).tolist()
    large = Image.new("RGB", (4 * width, 4 * height), tuple(rng.integers(0, 90, 3).tolist()))
    radius = rng.uniform(0.2, 0.4) * min(large.size)
    x, y = (rng.uniform(1.05 * radius, side - 1.05 * radius) for side in large.size)
    angles = np.pi * (2 * np.arange(corners) / corners + (1 / 4 if corners == 4 else -1 / 2))
    outline = [(x + radius * np.cos(angle), y + radius * np.sin(angle)) for angle in angles]
    ImageDraw.Draw(large).polygon(outline, fill=tuple(rng.integers(110, 256, 3).tolist()))
    pixels = np.asarray(large.resize((width, height), Image.Resampling.BOX)).astype(float)
    pixels += rng.normal(0, rng.uniform(0, 18), pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """A folder of 300 circles (as far as 32 corners make one), squares and triangles."""
    folder, rng = tmp_path_factory.mktemp("shapes"), np.random.default_rng(0)
    for name, corners in (("circle", 32), ("square", 4), ("triangle", 3)):
        (folder / name).mkdir()
        for number in range(100):
            draw(rng, corners).save(folder / name / f"{number}.png")
    return folder


SHORT = ["--resize", "32", "--schedule.passes", "20", "--schedule.warmup-passes", "2"]


@pytest.mark.parametrize("more", [SHORT, pytest.param([], marks=pytest.mark.nightly)], ids=["short", "whole"])
def test_three_shapes_are_told_apart(shapes, tmp_path, more):
    options = ["--train.device", "cpu", "--out", str(tmp_path / "run"), "--data.cache-dir", str(tmp_path / "cache")]
    result = train(parse_train(["--data", str(shapes), *options, *more]), SilentReporter())
    assert result.recipe == "photos" and result.test_accuracy >= 0.95
