"""Trained models in a configuration: what a run starts from.

A model is given as a finished run's folder, a file of weights or a name on the Hugging Face Hub, and counts by its file's
content: a moved model is the same, a changed one is not. A run keeps a copy, named by the content's digest, in weights/ of
its folder, so that it goes on without the original.
"""

import importlib.util
import os
import re
from collections.abc import Iterable
from pathlib import Path

from pocketvit.config import shipped
from pocketvit.config.shipped import find_run, shipped_names
from pocketvit.errors import InputError
from pocketvit.files import digest_of, read_bytes, write_atomically

FOLDER = "weights"  # the folder of copies, next to the file that refers to them
PICKLED = (".pt", ".pth")  # endings of PyTorch's own format; all other files are safetensors
COPY = re.compile(r"[0-9a-f]{16}\.(safetensors|pt|pth)")  # the name of a copy
HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")  # of a model on the Hub


class Weights:
    """The file of a trained model. Two are equal if their content is.

    Args:
        name: by which messages and commands call it; by default its path.
    """

    def __init__(self, path: Path, digest: str, name: str | None = None) -> None:
        self.path, self.digest, self.name = path, digest, name or str(path)

    @classmethod
    def find(cls, given: str | os.PathLike, folder: Path = Path()) -> "Weights":
        """The model in a run folder or file, one that comes with the package by its name, or one named hf:OWNER/NAME.

        A relative path is relative to `folder`. The digest of a copy is taken from its name, and checked when it is read.

        Raises:
            InputError: there is none, or it cannot be read or downloaded.
        """
        name = given if isinstance(given, str) and given.startswith("hf:") else None
        path = Path(os.path.abspath(find_run(downloaded(name) if name else given, folder)))
        name = path.name if path.parent == shipped.SHIPPED else name
        path = path / "model.safetensors" if path.is_dir() else path
        if path.parent.name == FOLDER and COPY.fullmatch(path.name):
            return cls(path, path.stem)
        return cls(path, digest_of(_read(path)), name)

    def read(self) -> bytes:
        """The file's content.

        Raises:
            InputError: it cannot be read, or has changed.
        """
        content = _read(self.path)
        if digest_of(content) != self.digest:
            raise InputError(f"{self.path} has changed: its SHA-256 no longer begins with {self.digest}")
        return content

    @property
    def copied(self) -> str:
        """The path of the copy, for a file next to the folder of copies."""
        return f"{FOLDER}/{self.digest}{self.path.suffix if self.pickled else '.safetensors'}"

    @property
    def pickled(self) -> bool:
        """Whether the file has PyTorch's own format."""
        return self.path.suffix in PICKLED

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"Weights({self})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Weights) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


class RunOf(Weights):
    """The model that another row of a study trains with the same seed, before that run is finished."""

    def __init__(self, row: str) -> None:
        super().__init__(Path(f"the model of row {row}"), f"row {row}")
        self.row = row


def downloaded(given: str) -> Path:
    """The file model.safetensors of hf:OWNER/NAME in the Hub's cache; downloaded if it is not there or has changed.

    Raises:
        InputError: another form, it cannot be downloaded, or huggingface_hub is not installed.
    """
    if not HUB_NAME.fullmatch(name := given.removeprefix("hf:")):
        raise InputError(f"{given!r} is not a model on the Hub: expected hf:OWNER/NAME")
    if importlib.util.find_spec("huggingface_hub") is None:
        raise InputError(f"{given} needs huggingface_hub: pip install 'pocketvit[data]'")
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, "model.safetensors"))
    except Exception as error:  # the library's own, those of its network libraries and those of the system
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(f"{given} cannot be downloaded: {why}") from error


def _read(path: Path) -> bytes:
    try:
        return read_bytes(path)
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror}; give the folder of a finished run, its model.safetensors, or the name of a "
            f"model that comes with PocketViT: {', '.join(shipped_names())}"
        ) from error


def save_weights(models: Iterable[Weights], folder: Path) -> None:
    """Copy models to the folder of copies in `folder`.

    Raises:
        InputError: one cannot be read or written, or has changed.
    """
    for model in models:
        if not (target := folder / model.copied).exists():
            write_atomically(target, model.read())
