"""Shifted patch tokenization: each patch also sees its four diagonal neighbourhoods.

Source: Lee et al. 2021, https://arxiv.org/abs/2112.13492, section 3.2: the image is moved by half a patch to left-up, right-up,
left-down and right-down, cropped to its size, and joined to the image by channel; then patches, flattened, LayerNorm, projection.
"""

import numpy as np

LEFT_UP, RIGHT_UP, LEFT_DOWN, RIGHT_DOWN = (-1, -1), (-1, 1), (1, -1), (1, 1)
DIRECTIONS = (LEFT_UP, RIGHT_UP, LEFT_DOWN, RIGHT_DOWN)
"""The paper's order, as (down, right) steps of the content. Where the crop moves instead, each is its opposite; a learned
projection does not care."""


def shifted(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """The image (C, H, W) moved down and right by that many pixels; zeros come in."""
    _, height, width = image.shape
    out = np.zeros(image.shape)
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - right < width:
                out[:, row, column] = image[:, row - down, column - right]
    return out


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    return (x - x.mean()) / np.sqrt(((x - x.mean()) ** 2).mean() + eps) * weight + bias


def shifted_patch_tokens(
    images: np.ndarray,
    patch: int,
    weight: np.ndarray,
    bias: np.ndarray,
    norm_weight: np.ndarray | float = 1.0,
    norm_bias: np.ndarray | float = 0.0,
    eps: float = 1e-5,
) -> np.ndarray:
    """The patch tokens, before CLS token and positions.

    Args:
        images: float64, (B, C, H, W); zero is what comes in from outside.
        patch: side of a patch; the shift is patch // 2.
        weight, bias: of the projection, (width, 5 * C * patch**2) for patches flattened from (5C, rows, columns), and (width,).
        norm_weight, norm_bias, eps: LayerNorm's over a flattened patch, (5 * C * patch**2,).
    Returns:
        float64, (B, patches, width), patches row by row.
    """
    tokens = []
    for image in images:
        parts = [image] + [shifted(image, down * (patch // 2), right * (patch // 2)) for down, right in DIRECTIONS]
        stacked = np.concatenate(parts)  # (5C, H, W)
        for row in range(0, stacked.shape[1], patch):
            for column in range(0, stacked.shape[2], patch):
                flat = stacked[:, row : row + patch, column : column + patch].reshape(-1)
                tokens.append(weight @ layer_norm(flat, norm_weight, norm_bias, eps) + bias)
    return np.stack(tokens).reshape(len(images), -1, len(weight))


def num_params(width: int, patch: int, channels: int = 3) -> int:
    """Parameters of the stem: LayerNorm and projection of 5 * C * patch**2 numbers."""
    inputs = 5 * channels * patch**2
    return 2 * inputs + inputs * width + width
