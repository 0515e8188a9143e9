"""Export a trained model: a folder with its files and a model card."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from pocketvit.config import DataConfig, code_of
from pocketvit.config.checks import unknown
from pocketvit.config.files import to_dict
from pocketvit.errors import InputError
from pocketvit.files import write_atomically
from pocketvit.inference.export import plain, whole
from pocketvit.inference.export.card import check_license, model_card
from pocketvit.inference.export.origin import Origin, shareable
from pocketvit.inference.trained_model import TrainedModel
from pocketvit.usercode import FOLDER as CODE_FOLDER

WRITERS: dict[str, Callable[[TrainedModel, dict[str, Any], DataConfig], dict[str, bytes]]] = {
    "onnx": lambda trained, about, _: whole.onnx(trained, about),
    "torchscript": lambda trained, about, _: whole.torchscript(trained, about),
    "timm": plain.timm,
    "hf": plain.hf,
    "safetensors": lambda trained, *_: {"model.safetensors": trained.content()},
}
"""The files of each format, by name."""


def check_free(folder: Path) -> None:
    """Raise an `InputError` unless a folder is new or empty: what is in it might be pushed along."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists already; choose a new or an empty folder")


def package(trained: TrainedModel, format: str, *, license: str | None = None) -> dict[str, bytes]:
    """The files of an exported model by their paths in its folder; arguments as for `TrainedModel.export`.

    Raises:
        InputError: an unknown format, one that the model does not fit, a missing package, or a license that is no short name.
    """
    if format not in WRITERS:
        raise InputError(unknown("format", format, WRITERS))
    check_license(license)
    origin = Origin.of(trained)
    files = WRITERS[format](trained, origin.about(trained), origin.data)
    if format == "safetensors":
        files |= {f"{CODE_FOLDER}/{code.path.name}": code.source for code in code_of(trained.model.config).values()}
        if origin.config is not None:
            files["config.yaml"] = yaml.safe_dump(to_dict(shareable(origin.config)), sort_keys=False).encode()
    return files | {"README.md": model_card(trained, format, origin, license).encode()}


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    """Write what `package` made, each file completely or not at all.

    Raises:
        InputError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror}") from error
    for name, content in files.items():
        write_atomically(folder / name, content)
