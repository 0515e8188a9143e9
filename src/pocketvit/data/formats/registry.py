"""The supported file formats, and the detection of a path's format.

Each format is a module with three functions: `matches(path)` looks only at the names of files and folders, `files(path)`
lists the files to read (for the cache's key), and `read(path, config, store)` decodes them as the configuration says.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pocketvit.config.checks import unknown
from pocketvit.config.data import DataConfig
from pocketvit.data.dataset import Decoded
from pocketvit.data.formats import cifar, folders, idx, npz, parquet, stl10, svhn, table
from pocketvit.data.raw_splits import Store, is_image
from pocketvit.errors import InputError


@dataclass(frozen=True)
class Format:
    """One file format."""

    name: str
    description: str
    matches: Callable[[Path], bool]
    files: Callable[[Path], list[Path]]
    read: Callable[[Path, DataConfig, Store], Decoded]


FORMATS = tuple(
    Format(name, description, module.matches, module.files, module.read)
    for name, description, module in (
        ("cifar", "the CIFAR-10 or CIFAR-100 python archive, packed or unpacked", cifar),
        ("parquet", "parquet files as on the Hugging Face Hub", parquet),
        ("npz", "a NumPy .npz file", npz),
        ("idx", "the files of MNIST, Fashion-MNIST or EMNIST: train-images-idx3-ubyte.gz and the like", idx),
        ("svhn", "SVHN's train_32x32.mat and test_32x32.mat", svhn),
        ("stl10", "STL-10's train_X.bin, train_y.bin, test_X.bin and test_y.bin", stl10),
        ("csv", "images beside labels.csv or metadata.csv", table),
        ("folder", "image folders: train/<class>/* and test/<class>/*, or <class>/*", folders),
    )
)
"""In the order to try."""


def detect(path: Path) -> str:
    """The name of the format of `path`.

    Raises:
        InputError: the path is missing, empty, or of an unknown format.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist")
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes)")
    for known in FORMATS:
        if known.matches(path):
            # Image folders with a stray parquet file or table are image folders; their reader notes what it ignores.
            return "folder" if known.name in ("parquet", "csv") and folders.is_whole(path) else known.name
    if path.is_dir() and any(is_image(file) for file in path.iterdir()):
        raise InputError(
            f"{path} contains images, but neither class folders nor labels.csv; give the folder above if this is one class, "
            f"or move the images to {path.name}/<class>/*"
        )
    content = "is an empty folder" if path.is_dir() and not any(path.iterdir()) else "has an unknown format"
    raise InputError(f"{path} {content}: expected {'; '.join(known.description for known in FORMATS)}")


def find_format(name: str) -> Format:
    """The format with this name.

    Raises:
        InputError: there is none; the message names the nearest.
    """
    for known in FORMATS:
        if known.name == name:
            return known
    raise InputError(unknown("data format", name, [known.name for known in FORMATS]))
