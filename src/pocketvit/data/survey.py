"""Number and sizes of images, before a configuration is chosen for them."""

from pathlib import Path

from PIL import Image

from pocketvit.config import DataConfig
from pocketvit.data.formats import folders, table
from pocketvit.data.pixels import FORMATS
from pocketvit.data.raw_splits import is_image
from pocketvit.data.sources import is_known, locate, open_dataset
from pocketvit.files import regular_size

MOST_LOOKED_AT = 200  # images of a folder whose headers are read


def survey(config: DataConfig) -> tuple[int, list[tuple[int, int]]]:
    """The approximate number of images to train on, without those held out, and the sizes (height, width) of some of them.

    Raises:
        InputError: the source cannot be found or read.
    """
    located = None if is_known(config.source) else locate(config)
    if located is None or located[1].name not in ("folder", "csv"):
        dataset = open_dataset(config)
        return round(len(dataset.train) * (1 - config.val_frac)), [dataset.image_size]
    path, kind = located
    splits = folders.find(path) if kind.name == "folder" else {"train": {"": [*filter(is_image, table.files(path))]}}
    files = [file for members in splits.get("train", {}).values() for file in members]
    sizes = [size for file in files[:: max(1, len(files) // MOST_LOOKED_AT)] if (size := _size(file)) is not None]
    tested = 0 if len(splits) > 1 else config.test_frac
    return round(len(files) * (1 - tested) * (1 - config.val_frac)), sizes


def _size(file: Path) -> tuple[int, int] | None:
    """Height and width from an image's header; None if it cannot be read, which decoding reports."""
    try:
        regular_size(file)
        with Image.open(file, formats=FORMATS) as image:
            return image.height, image.width
    except Exception:  # on broken bytes, Pillow raises many kinds
        return None
