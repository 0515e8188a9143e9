"""Masked autoencoder: predict the pixels of hidden patches.

Source: He et al. 2022, https://arxiv.org/abs/2111.06377, section 3: a random share of the patches (75 %) is hidden; the
encoder sees only the others; the loss is the mean squared error on hidden patches alone. The better targets are pixels
normalized by the mean and standard deviation of their patch.
"""

import numpy as np


def num_kept(patches: int, mask_ratio: float) -> int:
    """How many patches the encoder sees: the authors round down."""
    return int(patches * (1 - mask_ratio))


def patchify(images: np.ndarray, patch: int) -> np.ndarray:
    """(B, C, H, W) to (B, patches, patch * patch * C), patches row by row, each as (row, column, channel)."""
    out = []
    for image in images:
        for row in range(0, image.shape[1], patch):
            for column in range(0, image.shape[2], patch):
                block = image[:, row : row + patch, column : column + patch]
                out.append(block.transpose(1, 2, 0).reshape(-1))
    return np.stack(out).reshape(len(images), -1, out[0].size)


def mae_loss(
    images: np.ndarray,
    predicted: np.ndarray,
    hidden: np.ndarray,
    patch: int,
    normalize: bool = True,
    eps: float = 1e-6,
    unbiased: bool = True,
) -> float:
    """The mean over hidden patches of the mean squared error of their pixels.

    Args:
        images: float64, (B, C, H, W).
        predicted: (B, patches, patch * patch * C), in the order of `patchify`.
        hidden: bool, (B, patches).
        normalize: by each patch's own mean and sqrt(variance + eps); the authors' variance is divided by n - 1 (`unbiased`).
    """
    losses = []
    for targets, guesses, mask in zip(patchify(images, patch), predicted, hidden):
        for target, guess, masked in zip(targets, guesses, mask):
            if masked:
                if normalize:
                    target = (target - target.mean()) / np.sqrt(target.var(ddof=int(unbiased)) + eps)
                losses.append(((guess - target) ** 2).mean())
    return float(np.mean(losses))
