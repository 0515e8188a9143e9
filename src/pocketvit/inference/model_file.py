"""A trained model's file: its weights as safetensors, and in the metadata all else that is needed to use them."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from pocketvit.config import ModelConfig, RunConfig, code_fields, code_of
from pocketvit.config.data import LARGEST_SIDE
from pocketvit.config.weights import Weights
from pocketvit.data.pixels import one_line
from pocketvit.errors import InputError
from pocketvit.files import utf8_name
from pocketvit.inference.foreign import from_timm, timm_fields
from pocketvit.inference.torch_files import unpickled
from pocketvit.model import ViT
from pocketvit.model.stems import CHANNELS
from pocketvit.runs.result import Natural, Text, is_number, take_fields
from pocketvit.usercode import REFERENCE, resolve

MOST_CONSTANTS = 2**24
"""Greatest size of position tables, which follow from the image size and are not in the file."""
BROKEN = (SafetensorError, OSError, KeyError, TypeError, AttributeError, RuntimeError, ValueError)
"""What reading a file raises that is not a model's."""


def _numbers(least: float, *kinds: type, most: float = math.inf, count: int = CHANNELS) -> Callable[[Any], bool]:
    """Whether a value is a list of the given number of finite numbers within bounds."""
    return lambda value: (
        isinstance(value, list)
        and len(value) == count
        and all(is_number(number) and isinstance(number, kinds) and least <= number <= most for number in value)
    )


@dataclass(frozen=True, kw_only=True)
class About:
    """The metadata; a field at its default is not written."""

    model: Annotated[Mapping[str, Any], "the model's fields by name", lambda value: isinstance(value, dict)]
    image_size: Annotated[Sequence[int], "height and width in pixels", _numbers(1, int, most=LARGEST_SIDE, count=2)]
    class_names: Annotated[
        Sequence[str],
        "a name for each class",
        lambda value: isinstance(value, list) and value and all(isinstance(name, str) for name in value),
    ]
    mean: Annotated[Sequence[float], "three finite numbers", _numbers(-math.inf, int, float)]
    std: Annotated[Sequence[float], "three numbers above 0", _numbers(1e-30, int, float)]
    images: Natural | None = None
    distilled: Annotated[bool, "true or false", lambda value: isinstance(value, bool)] = False
    objective: Text = "classification"

    @classmethod
    def read(cls, where: str, metadata: Mapping[str, str]) -> "About":
        """The metadata of a file; those of older versions have one key per field."""
        held = {key: json.loads(value) for key, value in metadata.items()}
        return cls(**take_fields(where, cls, held.get("pocketvit", held)))


def file_content(model: ViT, about: About) -> bytes:
    """The file of a model; equal models have equal files."""
    told = {item.name: value for item in fields(about) if (value := getattr(about, item.name)) != item.default}
    # Copies, also of tied tensors.
    weights = {name: tensor.to("cpu", copy=True).contiguous() for name, tensor in model.state_dict().items()}
    # One key: safetensors writes several in random order.
    return save(weights, metadata={"pocketvit": json.dumps(told, sort_keys=True)})


def read_model(path: Path, *, allow_code: bool) -> tuple[ViT, About]:
    """The model in a file, on the CPU, and its metadata.

    Args:
        path: a model with user-defined code needs the folder code/ next to it.
        allow_code: agree to run that code.
    Raises:
        InputError: it is not one of ours, or has code without consent.
    """
    try:
        with utf8_name(path) as name, safe_open(name, framework="pt") as file:
            about = About.read(str(path), file.metadata())
            named = {f"model.{name}": value for name, value in about.model.items()}
            code, folder = code_fields(RunConfig), path.parent
            named = resolve(named, fields=code, folder=folder, where=str(path), allow_code=allow_code, inside=True)
            config = ModelConfig(**{name.removeprefix("model."): value for name, value in named.items()})
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
    return model, about


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


def read_weights(weights: Weights) -> tuple[dict[str, Tensor], About]:
    """As `read_tensors`; another file than one that PocketViT saved raises an `InputError` as well."""
    tensors, about = read_tensors(weights)
    if about is None:
        raise InputError(f"{weights} is not a model that PocketViT saved")
    return tensors, about


def described(weights: Weights) -> tuple[ModelConfig, int | None]:
    """A trained model's fields, and the side of its images in pixels if they are square.

    Raises:
        InputError: it cannot be read, is of another kind, or has user-defined code.
    """
    tensors, about = read_tensors(weights)
    if about is None:
        fields, side = timm_fields(from_timm(tensors, weights))
    else:
        fields, (height, width) = about.model, about.image_size
        side = height if height == width else None
        if code := [str(value) for value in fields.values() if isinstance(value, str) and REFERENCE.fullmatch(value)]:
            raise InputError(
                f"init_from={weights} has user-defined code, {code[0]}; start from its run's fields: --config "
                "RUN/config.yaml --init-from RUN --allow-code"
            )
    try:
        return ModelConfig(**fields), side
    except TypeError as error:
        raise InputError(f"init_from={weights} has fields that this version does not know: {error}") from error
    except InputError as error:
        raise InputError(f"init_from={weights}: {error}") from error
