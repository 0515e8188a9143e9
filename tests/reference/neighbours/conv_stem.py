"""The convolutional tokenizer of the Compact Convolutional Transformer (CCT), its pooling, and its parameter count.

Source: Hassani et al. 2021, https://arxiv.org/abs/2104.05704, section 3.4 (x_0 = MaxPool(ReLU(Conv2d(x)))) and 3.3 (SeqPool).
CCT-7/3x1 has 7 blocks and a stem of one 3 x 3 convolution: stride 1, padding 1, no bias, then ReLU, then a maximum over 3 x 3 at
stride 2, padding 1.
"""

import numpy as np


def convolution(image: np.ndarray, weight: np.ndarray, stride: int = 1, padding: int = 1) -> np.ndarray:
    """Cross-correlation, as deep learning calls convolution. image (C, H, W), weight (out, C, k, k)."""
    out_channels, _, kernel, _ = weight.shape
    padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
    height, width = ((side + 2 * padding - kernel) // stride + 1 for side in image.shape[1:])
    out = np.zeros((out_channels, height, width))
    for row in range(height):
        for column in range(width):
            window = padded[:, row * stride : row * stride + kernel, column * stride : column * stride + kernel]
            for channel in range(out_channels):
                out[channel, row, column] = (window * weight[channel]).sum()
    return out


def max_pool(image: np.ndarray, kernel: int = 3, stride: int = 2, padding: int = 1) -> np.ndarray:
    """The largest value in each window; outside the image lies -inf. (C, H, W)."""
    padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)), constant_values=-np.inf)
    height, width = ((side + 2 * padding - kernel) // stride + 1 for side in image.shape[1:])
    out = np.zeros((len(image), height, width))
    for row in range(height):
        for column in range(width):
            window = padded[:, row * stride : row * stride + kernel, column * stride : column * stride + kernel]
            out[:, row, column] = window.max(axis=(1, 2))
    return out


def cct_tokenizer(images: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    """Convolution, ReLU and max pooling for each weight, then the places as tokens, row by row.

    Args:
        images: float64, (B, C, H, W).
        weights: of the convolutions, (out, in, k, k) each.
    Returns:
        float64, (B, tokens, width).
    """
    tokens = []
    for image in images:
        for weight in weights:
            image = max_pool(np.maximum(convolution(image, weight), 0))
        tokens.append(image.reshape(len(image), -1).T)
    return np.stack(tokens)


def sequence_pool(tokens: np.ndarray, weight: np.ndarray, bias: float = 0.0) -> np.ndarray:
    """SeqPool: the tokens' mean weighted by softmax(weight . token + bias). tokens (N, D), weight (D,)."""
    scores = np.array([np.dot(weight, token) + bias for token in tokens])
    shares = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    return sum(share * token for share, token in zip(shares, tokens))


def stem_num_params(channels: list[int], kernel: int = 3) -> int:
    """Weights of the convolutions from channels[0] by way of the others to channels[-1], without biases."""
    return sum(kernel**2 * before * after for before, after in zip(channels, channels[1:]))


def cct_num_params(
    depth: int = 7,
    width: int = 256,
    mlp_ratio: float = 2,
    channels: tuple[int, ...] = (3, 256),
    image: int = 32,
    classes: int = 10,
) -> int:
    """Parameters of CCT with learned positions; the defaults are CCT-7/3x1, 3.76 M in the paper."""
    tokens = (image // 2 ** (len(channels) - 1)) ** 2
    hidden = int(width * mlp_ratio)
    attention = 3 * width**2 + width**2 + width  # q, k and v have no bias
    mlp = 2 * width * hidden + hidden + width
    norms = 2 * 2 * width
    blocks = depth * (attention + mlp + norms)
    last_norm_pool_head = 2 * width + (width + 1) + (width + 1) * classes
    return stem_num_params(list(channels)) + tokens * width + blocks + last_norm_pool_head
