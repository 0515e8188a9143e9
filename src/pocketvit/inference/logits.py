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
    if labels.ndim == 2:
        return float(((logits >= 0).numpy() == labels).all(axis=1).mean())
    return float((logits.argmax(dim=1).numpy() == labels).mean())


def mean_loss(logits: Tensor, labels: np.ndarray) -> float:
    """Mean cross-entropy of logits (N, K) against the labels (N,), without smoothing, in nats.

    With several classes an image, labels (N, K), the mean binary one, also over classes.
    """
    targets = torch.from_numpy(np.array(labels))
    if labels.ndim == 2:
        return float(torch.nn.functional.binary_cross_entropy_with_logits(logits.double(), targets.double()))
    return float(torch.nn.functional.cross_entropy(logits.double(), targets))


def per_class_accuracy(logits: Tensor, labels: np.ndarray, class_names: Sequence[str]) -> dict[str, float]:
    """`accuracy` of each class that has images, by its name."""
    hits = logits.argmax(dim=1).numpy() == labels
    return {name: float(hits[labels == k].mean()) for k, name in enumerate(class_names) if k in labels}
