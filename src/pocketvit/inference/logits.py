"""Logits of images, and the scores that follow from them.

Shapes: N images, B batch, C channels, H W pixels, K classes.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from pocketvit.augment.augment import normalise
from pocketvit.data.dataset import MappedRows
from pocketvit.model import ViT

EVAL_BATCH = {"cuda": 2_000, "mps": 500, "cpu": 200}


def predict_logits(
    model: ViT, images: np.ndarray | MappedRows, mean: Tensor, std: Tensor, *, flip_average: bool = False
) -> Tensor:
    """Classify images in fp32; other arguments as for `in_batches`.

    Args:
        flip_average: return the mean of the logits of each image and its mirror image.
    Returns:
        logits, float32, (N, K), on the CPU.
    """

    def compute(x: Tensor) -> Tensor:
        found = model(x).float()  # (B, K)
        return found.add(model(x.flip(3)).float()) / 2 if flip_average else found

    return in_batches(model, images, mean, std, compute)


def in_batches(
    model: ViT, images: np.ndarray | MappedRows, mean: Tensor, std: Tensor, compute: Callable[[Tensor], Tensor]
) -> Tensor:
    """Compute something of images in batches; smaller ones if the GPU runs out of memory.

    Args:
        model: on its device; in evaluation mode while it computes, then left in the mode it was in.
        images: uint8, (N, H, W, C), at least one.
        mean: of the training pixels in [0, 1], (C,), on the model's device.
        std: of the same pixels, (C,).
        compute: from normalized pixels (B, C, H, W) to B rows.
    Returns:
        N rows, on the CPU.
    """
    device = mean.device
    was_training = model.training
    model.eval()
    rows, start, size = [], 0, EVAL_BATCH[device.type]
    with torch.inference_mode():
        while start < len(images):
            batch = as_tensor(images[start : start + size])
            try:
                rows.append(compute(normalise(batch.to(device), mean, std)).cpu())
                start += len(batch)
            except torch.cuda.OutOfMemoryError:  # training uses the GPU's memory; smaller batches give the same result
                if size == 1:
                    raise
                size //= 2
    model.train(was_training)
    return torch.cat(rows)  # outside of inference mode, so that more can be trained on it


def as_tensor(images: np.ndarray) -> Tensor:
    """Images as a tensor that may share their memory; PyTorch warns about Pillow's read-only arrays."""
    return torch.from_numpy(np.require(images, requirements=["C_CONTIGUOUS", "WRITEABLE"]))


def accuracy(logits: Tensor, labels: np.ndarray) -> float:
    """Fraction of rows of logits (N, K) whose largest entry is the label (N,).

    With several classes an image, labels (N, K), the fraction with exactly their classes at 50 % or more.
    """
    return float(right(logits, labels).mean())


def right(logits: Tensor, labels: np.ndarray) -> np.ndarray:
    """Which rows of logits `accuracy` counts as right, bool, (N,)."""
    if labels.ndim == 2:
        return ((logits >= 0).numpy() == labels).all(axis=1)
    return logits.argmax(dim=1).numpy() == labels


def mean_loss(logits: Tensor, labels: np.ndarray) -> float:
    """Mean cross-entropy of logits (N, K) against the labels (N,), without smoothing, in nats.

    With several classes an image, labels (N, K), the mean binary one, also over classes.
    """
    return float(image_losses(logits.double(), labels).mean())


def image_losses(logits: Tensor, labels: np.ndarray) -> Tensor:
    """The loss of each image, (N,), whose mean is `mean_loss`."""
    targets = torch.from_numpy(np.array(labels))
    if labels.ndim == 2:
        binary = torch.nn.functional.binary_cross_entropy_with_logits
        return binary(logits, targets.to(logits.dtype), reduction="none").mean(dim=1)
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")


def per_class_accuracy(logits: Tensor, labels: np.ndarray, class_names: Sequence[str]) -> dict[str, float]:
    """`accuracy` of each class that has images, by its name."""
    hits = right(logits, labels)
    return {name: float(hits[labels == k].mean()) for k, name in enumerate(class_names) if k in labels}
