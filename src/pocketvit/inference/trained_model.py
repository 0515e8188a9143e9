"""A trained model, loaded from its file: classify images with it, see what it attends to, export it.

Shapes: N images, B batch, C channels, H W pixels, K classes.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pocketvit.config import code_of
from pocketvit.config.checks import describe_size
from pocketvit.config.shipped import find_run, shipped_names
from pocketvit.data.dataset import MappedRows
from pocketvit.data.pixels import channels_last_remedy, uint8_remedy
from pocketvit.errors import InputError
from pocketvit.files import path_of, write_atomically
from pocketvit.inference.attention_maps import AttentionMaps, attention_maps
from pocketvit.inference.logits import in_batches, predict_logits
from pocketvit.inference.model_file import About, file_content, read_model
from pocketvit.model import ViT
from pocketvit.model.stems import CHANNELS
from pocketvit.runs.finished import refuse_many
from pocketvit.usercode import Code, save_copies


@dataclass(frozen=True)
class TrainedModel:
    """A model with what it needs to be used alone."""

    model: ViT
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    """Of the training pixels in [0, 1], one number per channel."""
    std: tuple[float, ...]
    images: int | None = None
    """Training images that it has seen, with those of the models that it was started and learned from; None if unknown."""
    objective: str = "classification"
    """What it has learned by, `objective.name`. Without labels, the head is a probe that was trained beside."""
    file: Path | None = None
    """That it was loaded from; what its folder says of the run goes into the model card of `export`."""

    @property
    def multilabel(self) -> bool:
        """Whether an image may have several classes, so that probabilities do not sum to 1."""
        return self.objective == "multilabel"

    def logits(self, images: np.ndarray | MappedRows, *, flip_average: bool = False) -> Tensor:
        """Classify uint8 images (N, H, W, C), C = 3: logits (N, K) on the CPU; (0, K) without images.

        Args:
            images: their size is the model's.
            flip_average: return the mean of the logits of each image and its mirror image.
        Raises:
            InputError: other inputs, or images of another size than the model's.
        """
        self._check(images)
        if not len(images):
            return torch.empty(0, self.model.num_classes)
        return predict_logits(self.model, images, *self._statistics, flip_average=flip_average)

    def probabilities(self, images: np.ndarray | MappedRows) -> np.ndarray:
        """Class probabilities of uint8 images (N, H, W, C): float32 (N, K); rows sum to 1 unless `multilabel`.

        Args:
            images: as for `logits`.
        Raises:
            InputError: as `logits`.
        """
        return self.probabilities_of(self.logits(images)).numpy()

    def probabilities_of(self, logits: Tensor) -> Tensor:
        """Class probabilities of logits; with several classes an image, each by itself.

        Args:
            logits: (N, K).
        """
        return logits.sigmoid() if self.multilabel else logits.softmax(dim=1)

    def features(self, images: np.ndarray | MappedRows) -> Tensor:
        """What the head reads of uint8 images (N, H, W, C), on the CPU: the pooled tokens after the last norm.

        Args:
            images: as for `logits`.
        Returns:
            by `model.pool`: with `cls` all CLS tokens in a row, (N, CLS tokens · D); with `mean` and `attention`
            (N, D); with `cls_per_class` (N, K, D). Without a distillation token, which has a head of its own.
        Raises:
            InputError: as `logits`.
        """
        self._check(images)
        model, taken = self.model, self.model.tokens.num_read
        if not len(images):
            images = np.zeros((1, *model.image_size, CHANNELS), np.uint8)
            return self.features(images)[:0]
        return in_batches(model, images, *self._statistics, lambda x: model.pool(model.features(x, taken=taken)))

    def attention_maps(self, images: np.ndarray, classes: Sequence[int] | None = None) -> AttentionMaps:
        """What each token reads of the others, in every layer and head, for uint8 images (N, H, W, C).

        Some images at a time: the 12 heads of the paper's 9 layers have 4 MB an image.

        Args:
            images: as for `logits`.
            classes: for each image the number of the class whose logit the gradients are of; by default the predicted one.
        Raises:
            InputError: as `logits`, no image, numbers that are not the images' classes, or the model has attention by
                user-defined code.
        """
        self._check(images)
        return attention_maps(self.model, images, *self._statistics, classes)

    def save(self, path: Path) -> None:
        """Write `content` to a file; user-defined code, if any, to code/ next to it.

        Args:
            path: of the file.
        Raises:
            InputError: it cannot be written.
        """
        content = self.content()
        save_copies(code_of(self.model.config).values(), path.parent)
        write_atomically(path, content)

    def export(self, folder: str | Path, format: str, *, license: str | None = None) -> Path:
        """Write the model for other programs, with a model card: docs/export.md.

        >>> trained.export("digits-onnx", "onnx")

        Args:
            folder: a new or an empty one.
            format: onnx, torchscript, timm, hf or safetensors.
            license: of the weights, for the card, by the Hugging Face Hub's short name, such as mit; None states none.
        Returns:
            the folder.
        Raises:
            InputError: the model does not fit the format, a package is missing, or the folder holds something.
        """
        from pocketvit.inference.export.folder import check_free, package, write_files  # late, as it needs this module

        folder = path_of(folder)
        check_free(folder)
        write_files(folder, package(self, format, license=license))
        return folder

    def content(self) -> bytes:
        """Weights and all else as one safetensors file; user-defined code is only named."""
        model = self.model
        about = About(
            model={name: v.copied if isinstance(v, Code) else v for name, v in vars(model.config).items()},
            image_size=model.image_size,
            class_names=self.class_names,
            mean=self.mean,
            std=self.std,
            images=self.images,
            distilled=model.distilled_head is not None,
            objective=self.objective,
        )
        return file_content(model, about)

    @property
    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, (C,) each, on the model's device."""
        device = next(self.model.parameters()).device
        mean, std = (torch.tensor(value, dtype=torch.float32, device=device) for value in (self.mean, self.std))
        return mean, std

    def _check(self, images: Any) -> None:
        """Refuse inputs other than images like those of the training, and say how to convert them."""
        if not isinstance(images, np.ndarray | MappedRows):
            raise InputError(f"images are of type {type(images).__name__}; give an array, such as np.asarray(images)")
        if isinstance(images, np.ndarray) and images.dtype != np.uint8:
            raise InputError(f"images are {images.dtype}, not uint8; {uint8_remedy(images, 'images')}")
        height, width = self.model.image_size
        if images.ndim != 4 or images.shape[3] != 3:
            wanted = f"(N, {height}, {width}, 3)"
            raise InputError(f"images have shape {images.shape}, not {wanted}; {_advice(images.shape)}")
        if images.shape[1:3] != (height, width):
            got, wanted = describe_size(images.shape[1:3]), describe_size((height, width))
            raise InputError(f"images have {got}, but the model was trained on {wanted}: resize them")


def _advice(shape: tuple[int, ...]) -> str:
    """How to convert an array of another shape to RGB images (N, H, W, 3)."""
    match shape:
        case (_, _, 3):
            return "give a single image as images[None]"
        case (_, _, _):
            return "give gray images as np.stack([images] * 3, axis=-1)"
        case (_, _, _, 1):
            return "give gray images as np.repeat(images, 3, axis=3)"
        case (_, _, _, 4):
            return "images[..., :3] drops transparency"
        case (_, 3, _, _):
            return channels_last_remedy("images")
    return "give a batch of RGB images"


def load_model(run: str | Path, device: str | torch.device = "cpu", *, allow_code: bool = False) -> TrainedModel:
    """Load a trained model from its run folder or its model.safetensors, or one that comes with the package by its name.

    Args:
        run: the folder, the file or the name. A model with user-defined code needs the folder code/ next to the file.
        device: where the model is to compute.
        allow_code: agree to run that code.
    Raises:
        InputError: there is none, it is not one of ours, or it has code without consent.
    """
    run = find_run(run)
    path = run / "model.safetensors" if run.is_dir() else run
    if not path.exists():
        if (run / "config.yaml").exists():
            raise InputError(
                f"the run in {run} is not finished; resume with: pocketvit train --resume {quote(str(run))}"
            )
        refuse_many(run)
        raise InputError(
            f"no trained model at {path}; give a finished run folder, a model.safetensors, or the name of a model that comes "
            f"with PocketViT: {', '.join(shipped_names()) or 'none in this version'}"
        )
    if not path.is_file():
        raise InputError(f"{path} is not a regular file; give a finished run folder or a model.safetensors")
    if not os.access(path, os.R_OK):  # safetensors would say that there is no such file
        raise InputError(f"{path} cannot be read; ask its owner for permission")
    model, about = read_model(path, allow_code=allow_code)
    return TrainedModel(
        model=model.to(device).eval(),
        class_names=tuple(about.class_names),
        mean=tuple(about.mean),
        std=tuple(about.std),
        images=about.images,
        objective=about.objective,
        file=path,
    )
