"""Images as `data:` URIs, so that a page needs no other file.

N tiles of h×w pixels, K classes, F filters of p×p pixels, P patches, H W pixels.
"""

import base64
import io
from math import isqrt
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

PIXELATED_UP_TO = 64
"""Images up to this many pixels a side are stored exactly and shown with sharp pixels; larger ones as JPEG."""
THUMBNAIL = 256  # greatest side in pixels of a larger image on the page

ACCENT = (15, 118, 138)
WARM = (214, 92, 48)  # the page's two colors in a tone that is readable on light and on dark
LEAST_TILE = 8
"""Smaller position maps are enlarged to this many pixels a side, so that the lines between them stay thin."""
COLOURS = "viridis"
"""Matplotlib's name for the colors of maps, from dark to yellow."""
FAINTEST = 0.2  # opacity of the faintest error in a heat map


def is_small(image: np.ndarray) -> bool:
    """Whether an image (H, W, ...) is stored exactly and shown with sharp pixels."""
    return max(image.shape[:2]) <= PIXELATED_UP_TO


def image_uri(image: np.ndarray) -> str:
    """An RGB image, uint8 (H, W, 3), as a data URI."""
    if not is_small(image):
        thumbnail = Image.fromarray(image)
        thumbnail.thumbnail((THUMBNAIL, THUMBNAIL))
        return _uri(thumbnail, "JPEG", quality=85)
    is_grey = (image == image[..., :1]).all()
    return _png_uri(image[..., 0] if is_grey else image)


def picture(image: np.ndarray) -> dict[str, Any]:
    """What templates need to show an image, uint8 (H, W, 3)."""
    height, width = image.shape[:2]
    return {"uri": image_uri(image), "pixelated": is_small(image), "width": width, "height": height}


def heat_map_uri(matrix: np.ndarray) -> str:
    """A confusion matrix (K, K) of counts as a picture of K×K pixels.

    The diagonal has the accent color, with a strength by its share of the class; errors have the warm color, with a
    strength by the square root of their share, at least FAINTEST, so that rare ones are visible.
    """
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)  # (K, K)
    on_diagonal = np.eye(len(matrix), dtype=bool)
    errors = np.sqrt(np.where(on_diagonal, 0, share))
    strength = np.where(on_diagonal, share, errors / max(errors.max(), 1e-9))
    pixels = np.empty((*matrix.shape, 4), dtype=np.uint8)
    pixels[..., :3] = np.where(on_diagonal[..., None], ACCENT, WARM)
    pixels[..., 3] = np.round(255 * np.where(strength > 0, FAINTEST + (1 - FAINTEST) * strength, 0))
    return _png_uri(pixels)


def filter_sheet_uri(filters: np.ndarray) -> str:
    """Patch filters (F, p, p, 3) side by side, each scaled by its largest weight; gray is zero."""
    largest = np.abs(filters).max(axis=(1, 2, 3), keepdims=True)
    tiles = 0.5 + 0.5 * filters / np.maximum(largest, 1e-12)  # (F, p, p, 3)
    columns = 8 if len(tiles) <= 64 else 16
    return _png_uri(_tiled(tiles, columns))


def similarity_sheet_uri(similarity: np.ndarray) -> str:
    """Similarity of positions: for each patch, a small map of its cosine similarity to all others.

    If the patches do not form a square, the matrix (P, P) itself is shown.

    Source: Dosovitskiy et al. 2021, figure 7 (center), https://arxiv.org/abs/2010.11929
    """
    side = isqrt(len(similarity))
    maps = similarity.reshape(-1, side, side) if side * side == len(similarity) else similarity[None]  # (P, side, side)
    scale = -(-LEAST_TILE // maps.shape[1])
    maps = maps.repeat(scale, axis=1).repeat(scale, axis=2)  # (P, scale * side, scale * side)
    colours = matplotlib.colormaps[COLOURS]((np.clip(maps, -1, 1) + 1) / 2)[..., :3]
    return _png_uri(_tiled(colours, columns=isqrt(len(maps))))


def _tiled(tiles: np.ndarray, columns: int) -> np.ndarray:
    """Tiles in [0, 1], (N, h, w, 3), in rows with transparent lines between them, uint8 RGBA."""
    height, width = tiles.shape[1:3]
    rows = -(-len(tiles) // columns)
    sheet = np.zeros((rows * (height + 1) - 1, columns * (width + 1) - 1, 4), dtype=np.uint8)
    for i, tile in enumerate(tiles):
        top, left = i // columns * (height + 1), i % columns * (width + 1)
        sheet[top : top + height, left : left + width, :3] = np.round(255 * tile)
        sheet[top : top + height, left : left + width, 3] = 255
    return sheet


def map_uri(values: np.ndarray) -> str:
    """A map (rows, columns) in colors from its least value to its greatest, a pixel for each patch; see `scaled`."""
    return _png_uri(np.round(255 * matplotlib.colormaps[COLOURS](scaled(values))[..., :3]).astype(np.uint8))


def scaled(values: np.ndarray) -> np.ndarray:
    """A map from its least value, 0, to its greatest, 1; all 0 if there is no difference."""
    span = float(values.max() - values.min())
    return (values - values.min()) / span if span > 0 else np.zeros_like(values)


def _png_uri(pixels: np.ndarray) -> str:
    """Pixels, uint8 (H, W) or (H, W, 3 or 4), as they are."""
    return _uri(Image.fromarray(pixels), "PNG", optimize=True)


def _uri(image: Image.Image, file_format: str, **options) -> str:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return f"data:image/{file_format.lower()};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


COLOUR_BAR = map_uri(np.arange(64)[None])
"""The colors of maps in a row, from the least value to the greatest, for legends."""
