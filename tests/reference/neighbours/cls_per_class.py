"""One CLS token for each class, read for its own class.

Source: Xu et al. 2022 (MCTformer), https://arxiv.org/abs/2203.02891, section 3.2, and 2024 (MCTformer+),
https://arxiv.org/abs/2308.03005: a class's score is the mean over the channels of its own output token, y(c) = 1/D sum_j
T_cls(c, j). There is no classifier's weight. (MCTformer+ has a second score from the patch tokens, for segmentation.)

A LayerNorm before that mean spoils it: a normed token's mean over channels is zero, so at initialization (weight 1, bias 0)
every score is exactly zero and no gradient reaches the tokens. `normed_mean` shows it. RMSNorm keeps the mean.
"""

import numpy as np


def cls_per_class_logits(tokens: np.ndarray) -> np.ndarray:
    """The paper's scores. tokens: the class tokens as the last block leaves them, (B, K, D); returns (B, K)."""
    logits = np.zeros(tokens.shape[:2])
    for image in range(tokens.shape[0]):
        for label in range(tokens.shape[1]):
            logits[image, label] = sum(tokens[image, label]) / tokens.shape[2]
    return logits


def cls_per_class_dot_logits(tokens: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The variant with a learned reading of each token: w_c . T_cls(c) + b_c. tokens (B, K, D), weight (K, D), bias (K,)."""
    logits = np.zeros(tokens.shape[:2])
    for image in range(tokens.shape[0]):
        for label in range(tokens.shape[1]):
            logits[image, label] = np.dot(weight[label], tokens[image, label]) + bias[label]
    return logits


def normed_mean(token: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float = 1e-6) -> float:
    """The mean over channels of LayerNorm(token), token (D,): with one weight for all channels it is the mean of the biases."""
    centred = token - token.mean()
    return float((centred / np.sqrt((centred**2).mean() + eps) * weight + bias).mean())


def head_num_params(classes: int, width: int, learned: bool) -> int:
    """Class tokens, their positions not counted, and the reading's weights: none in the paper."""
    return classes * width + (classes * (width + 1) if learned else 0)
