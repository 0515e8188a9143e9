"""What a trained model looked at in image files.

Shapes: B images, T tokens that the head reads, H W pixels.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pocketvit.device import choose_device
from pocketvit.inference.evaluate import answer_each
from pocketvit.inference.trained_model import TrainedModel, load_model

AT_A_TIME = 16  # images; the weights of all layers are in memory


def explain_each(
    run: str | Path, files: Iterable[str | Path | bytes], *, device: str = "auto", allow_code: bool = False
) -> Iterator[dict[str, Any]]:
    """Predictions and attention maps of image files, one by one.

    Args:
        files: as for `pocketvit.inference.evaluate.predict_each`.
    Returns:
        for each image its `file`; `probabilities` by class name; `image`, uint8 (H, W, 3), as the model sees it; and `maps`
        (rows, columns) by name: rollout, gradient-weighted for the predicted class, and the last layer's heads. A map is of
        the predicted class's token if each class has one, else the mean over CLS tokens. For what cannot be read there
        is an `error`, an InputError, in place of all but the file.
    Raises:
        InputError: no trained model there, it has code and `allow_code` does not agree, or has no attention maps.
    """
    trained = load_model(run, choose_device(device), allow_code=allow_code)
    yield from answer_each(run, files, trained.model.image_size, partial(explained, trained), AT_A_TIME)


def explained(trained: TrainedModel, images: np.ndarray) -> Iterator[dict[str, Any]]:
    """Predictions and maps of uint8 images (B, H, W, 3), as `explain_each` gives them."""
    found = trained.attention_maps(images)
    per_class = trained.model.config.pool == "cls_per_class"
    matrices = (found.rollout(), found.gradient_weighted(), found.weights[-1])
    rollout, weighted, heads = map(found.on_patches, matrices)  # (B, T, rows, columns) each, the last (B, A, T, ...)

    def of_head(maps: Tensor, image: int) -> np.ndarray:
        own = maps[image].unbind(-3)  # T maps (..., rows, columns)
        return (own[int(found.classes[image])] if per_class else torch.stack(own).mean(dim=0)).numpy()

    for i, row in enumerate(trained.probabilities_of(found.logits).tolist()):
        by_head = {f"head {k}": one for k, one in enumerate(of_head(heads, i), start=1)}
        yield {
            "image": images[i],
            "probabilities": dict(zip(trained.class_names, row, strict=True)),
            "maps": {"rollout": of_head(rollout, i), "gradient-weighted": of_head(weighted, i), **by_head},
        }
