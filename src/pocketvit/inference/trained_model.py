"""A trained model and its file, which contains all that is needed to classify images.

Shapes: N images, B batch, C channels, H W pixels, K classes.
"""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from pocketvit.config import ModelConfig, RunConfig, code_fields, code_of
from pocketvit.config.checks import describe_size
from pocketvit.config.data import LARGEST_SIDE
from pocketvit.config.shipped import find_run, shipped_names
from pocketvit.config.weights import Weights
from pocketvit.data.dataset import MappedRows
from pocketvit.data.pixels import channels_last_remedy, one_line, uint8_remedy
from pocketvit.errors import InputError
from pocketvit.files import utf8_name, write_atomically
from pocketvit.inference.attention_maps import AttentionMaps, attention_maps
from pocketvit.inference.logits import in_batches, predict_logits
from pocketvit.inference.torch_files import unpickled
from pocketvit.model import ViT
from pocketvit.model.stems import CHANNELS
from pocketvit.runs.finished import refuse_many
from pocketvit.runs.result import Natural, Text, is_number, take_fields
from pocketvit.usercode import Code, resolve, save_copies

MOST_CONSTANTS = 2**24
"""Greatest size of position tables, which follow from the image size and are not in the model's file."""
BROKEN = (SafetensorError, OSError, KeyError, TypeError, AttributeError, RuntimeError, ValueError)
"""What reading a file raises that is not a model's."""


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

    @property
    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, (C,) each, on the model's device."""
        device = next(self.model.parameters()).device
        mean, std = (torch.tensor(value, dtype=torch.float32, device=device) for value in (self.mean, self.std))
        return mean, std

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

    def probabilities(self, images: np.ndarray) -> np.ndarray:
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
        from pocketvit.inference.export.folder import export  # late, as it needs this module

        return export(self, folder, format, license=license)

    def content(self) -> bytes:
        """Weights and all else as one safetensors file; user-defined code is only named."""
        model = {name: v.copied if isinstance(v, Code) else v for name, v in asdict(self.model.config).items()}
        about = {
            "model": model,
            "image_size": self.model.image_size,
            "class_names": self.class_names,
            "mean": self.mean,
            "std": self.std,
        }
        about |= {"distilled": True} if self.model.distilled_head else {}
        about |= {} if self.images is None else {"images": self.images}
        about |= {} if self.objective == "classification" else {"objective": self.objective}
        state = self.model.state_dict().items()
        # Copies, also of tied tensors.
        weights = {name: tensor.to("cpu", copy=True).contiguous() for name, tensor in state}
        # One key: safetensors writes several in random order, and equal runs should have equal files.
        return save(weights, metadata={"pocketvit": json.dumps(about, sort_keys=True)})


def _numbers(least: float, *kinds: type, most: float = math.inf, count: int = CHANNELS) -> Callable[[Any], bool]:
    """Whether a value is a list of the given number of finite numbers within bounds."""
    return lambda value: (
        isinstance(value, list)
        and len(value) == count
        and all(is_number(number) and isinstance(number, kinds) and least <= number <= most for number in value)
    )


@dataclass(frozen=True)
class About:
    """The metadata of a model's file."""

    model: Annotated[Mapping[str, Any], "the model's fields by name", lambda value: isinstance(value, dict)]
    image_size: Annotated[list[int], "height and width in pixels", _numbers(1, int, most=LARGEST_SIDE, count=2)]
    class_names: Annotated[
        list[str],
        "a name for each class",
        lambda value: isinstance(value, list) and value and all(isinstance(name, str) for name in value),
    ]
    mean: Annotated[list[float], "three finite numbers", _numbers(-math.inf, int, float)]
    std: Annotated[list[float], "three numbers above 0", _numbers(1e-30, int, float)]
    images: Natural | None = None
    distilled: Annotated[bool, "true or false", lambda value: isinstance(value, bool)] = False
    objective: Text = "classification"

    @classmethod
    def read(cls, where: str, metadata: Mapping[str, str]) -> "About":
        """The metadata of a file; those of older versions have one key per field."""
        held = {key: json.loads(value) for key, value in metadata.items()}
        return cls(**take_fields(where, cls, held.get("pocketvit", held)))


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
    try:
        with utf8_name(path) as name, safe_open(name, framework="pt") as file:
            about = About.read(str(path), file.metadata())
            chosen, fields = {f"model.{name}": value for name, value in about.model.items()}, code_fields(RunConfig)
            chosen = resolve(
                chosen, fields=fields, folder=path.parent, where=str(path), allow_code=allow_code, inside=True
            )
            config = ModelConfig(**{name.removeprefix("model."): value for name, value in chosen.items()})
            height, width = about.image_size
            sizes = {"image_size": (height, width), "num_classes": len(about.class_names)}
            make = partial(ViT, config, **sizes, distilled=about.distilled)
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
            if not _fits(make, config, shapes):
                raise InputError(f"{path}: its weights do not fit the model that it describes; copy it again")
            model = make()
            model.load_state_dict({name: file.get_tensor(name) for name in shapes})
    except InputError:
        raise
    except BROKEN as error:
        raise InputError(f"{path} is not a model that PocketViT saved: {one_line(error)}") from error
    if len(set(about.class_names)) < len(about.class_names):
        raise InputError(f"{path}: two of its classes have the same name, so their probabilities are ambiguous")
    rest = tuple(about.mean), tuple(about.std), about.images, about.objective
    return TrainedModel(model.to(device).eval(), tuple(about.class_names), *rest, file=path)


def read_weights(weights: Weights) -> tuple[dict[str, Tensor], About]:
    """The tensors in a trained model's file, and its metadata.

    Raises:
        InputError: it cannot be read, has changed, or is not a model that PocketViT saved.
    """
    tensors, about = read_tensors(weights)
    if about is None:
        raise InputError(f"{weights} is not a model that PocketViT saved")
    return tensors, about


def read_tensors(weights: Weights) -> tuple[dict[str, Tensor], About | None]:
    """The tensors in a file of weights, and its metadata if PocketViT saved it.

    Raises:
        InputError: it cannot be read, or has changed.
    """
    content = weights.read()
    if weights.pickled:
        return unpickled(content, str(weights)), None
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = header.get("__metadata__", {})
        ours = "pocketvit" in metadata or "class_names" in metadata
        return load(content), About.read(str(weights), metadata) if ours else None
    except InputError:
        raise
    except BROKEN as error:
        raise InputError(f"{weights} is not a model that PocketViT saved: {one_line(error)}") from error


def _fits(make: Callable[[], ViT], config: ModelConfig, shapes: Mapping[str, list[int]]) -> bool:
    """Whether weights of these shapes fit the model, checked before it takes memory; user-defined code runs once."""
    if config.depth > len(shapes):  # each block has several
        return False
    if code_of(config):
        return True
    with torch.device("meta"):
        model = make()
    constants = sum(constant.numel() for constant in model.buffers())
    return constants <= MOST_CONSTANTS and shapes == {name: list(w.shape) for name, w in model.state_dict().items()}
