"""Patch dropout: train on a random part of each image's patches.

Source: Liu et al. 2022, https://arxiv.org/abs/2208.07220: after the positions are added, a uniformly random subset of the
patch tokens is kept and the CLS token always is; nothing is rescaled; at test all patches are seen. timm keeps max(1, int(P *
(1 - prob))) patches.
"""

import numpy as np


def num_kept(patches: int, prob: float) -> int:
    return max(1, int(patches * (1 - prob)))


def patch_dropout(tokens: np.ndarray, kept: np.ndarray, num_front: int) -> np.ndarray:
    """The tokens that remain.

    Args:
        tokens: with positions, (B, front + patches, D).
        kept: int, which patches of each image stay, in the wished order, (B, kept).
        num_front: CLS tokens and registers in front.
    """
    images = []
    for image, places in zip(tokens, kept):
        rows = [image[place] for place in range(num_front)] + [image[num_front + place] for place in places]
        images.append(np.stack(rows))
    return np.stack(images)


def assert_random_subsets(kept: np.ndarray, patches: int, prob: float) -> None:
    """`kept`, int (draws, kept), holds distinct patches, of the right number, and every patch about equally often."""
    assert kept.shape[1] == num_kept(patches, prob)
    assert all(len(set(row)) == len(row) for row in kept.tolist())
    share = kept.shape[1] / patches
    counts = np.bincount(kept.reshape(-1), minlength=patches)
    allowed = 5 * np.sqrt(share * (1 - share) / len(kept)) + 1e-12  # five standard errors
    assert len(counts) == patches
    assert (abs(counts / len(kept) - share) <= allowed).all()
