"""Dense relative localization: the final tokens must tell how far apart they lie on the grid.

Source: Liu et al. 2021, https://arxiv.org/abs/2106.03746, section 4. From the last layer's grid of k x k patch tokens, pairs
are drawn uniformly. The target of tokens (i, j) and (p, h) is (|i - p| / k, |j - h| / k). A small MLP (two hidden layers of
512, ReLU) reads the two tokens side by side and predicts it. The loss is the L1 norm of the difference, averaged over pairs
and images, and is added to the cross-entropy with a factor of 0.1 (0.5 for Swin).
"""

import numpy as np


def mlp(x: np.ndarray, weights: list[np.ndarray], biases: list[np.ndarray]) -> np.ndarray:
    """Linear layers, weights (out, in), with ReLU between them."""
    for number, (weight, bias) in enumerate(zip(weights, biases)):
        x = weight @ x + bias
        if number < len(weights) - 1:
            x = np.maximum(x, 0)
    return x


def drloc_loss(grids: np.ndarray, pairs: np.ndarray, weights: list[np.ndarray], biases: list[np.ndarray]) -> float:
    """The mean over images and pairs of |t_u - d_u| + |t_v - d_v|.

    Args:
        grids: float64, final patch tokens (B, rows, columns, D).
        pairs: int, (B, pairs, 2, 2): two tokens, each (row, column).
        weights, biases: the MLP's, the last with two outputs: down and right.
    """
    batch, rows, columns, _ = grids.shape
    losses = []
    for image in range(batch):
        for (i, j), (p, h) in pairs[image]:
            target = np.array([abs(i - p) / rows, abs(j - h) / columns])
            predicted = mlp(np.concatenate([grids[image, i, j], grids[image, p, h]]), weights, biases)
            losses.append(abs(target - predicted).sum())
    return float(np.mean(losses))
