"""Any image to uint8 RGB pixels of one size, by stated rules.

- Grey repeats its value in the three channels; black-and-white is 0 and 255.
- 16-bit grey is divided by 257 and rounded, so that 65535 becomes 255. (Of 16-bit colour, or grey with
  alpha, Pillow keeps the high byte.)
- Alpha, also a palette's transparent entries, is composited over black: what is fully transparent becomes black.
- Palette, CMYK, YCbCr, LAB and HSV go through Pillow's `convert("RGB")`.
- A photo's EXIF orientation is applied. Of animations and multi-page files the first picture is taken.
- Floating-point pixels are refused, because their scale is not known.
- All images of a set must have one size. If `--data.resize N` asks for it, those that differ from N×N are resized to
  it, not keeping their aspect, by Pillow's bicubic filter (which averages over larger areas when it shrinks).
"""

import io
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pocketvit.config.checks import describe_size
from pocketvit.errors import InputError

GREY = "in grey, repeated in the three channels"
GREY16 = "in 16-bit grey, divided by 257 and repeated in the three channels"
ALPHA = "with alpha, composited over black"


class BrokenImage(InputError):
    """An image file cannot be read; the message names it."""


def decode(source: bytes | Path, where: str, converted: Counter[str] | None = None) -> np.ndarray:
    """Read one image file.

    Args:
        source: the file's content, or its path.
        where: what to call it in a message, such as "train.parquet, row 7".
        converted: counts what is done to images that are not 8-bit colour.
    Returns:
        pixels, uint8, (H, W, 3).
    Raises:
        BrokenImage: empty, truncated, corrupt, of no known format, or of floating-point pixels.
    """
    try:
        content = source.read_bytes() if isinstance(source, Path) else source
    except OSError as error:
        raise BrokenImage(f"{where}: cannot be read: {error.strerror}") from error
    if not content:
        raise BrokenImage(f"{where}: the image is empty (0 bytes); replace or remove it")
    try:
        with Image.open(io.BytesIO(content)) as image:
            return to_rgb(image, converted)
    except UnidentifiedImageError as error:
        raise BrokenImage(f"{where}: no image format that Pillow reads; replace or remove it") from error
    except InputError as error:
        raise BrokenImage(f"{where}: {error}") from error
    # Pillow's decoders meet broken bytes with OSError, SyntaxError, ValueError, struct.error and more.
    except Exception as error:
        why = f"the image is truncated or corrupt ({one_line(error)})"
        raise BrokenImage(f"{where}: {why}; replace or remove it") from error


def to_rgb(image: Image.Image, converted: Counter[str] | None = None) -> np.ndarray:
    """A Pillow image as uint8 RGB pixels, (H, W, 3), by the rules above.

    Raises:
        InputError: floating-point pixels, or integers outside 0 … 65535.
    """
    converted = Counter() if converted is None else converted
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise InputError("floating-point pixels have no known scale: save them with 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        converted[GREY16] += 1
        return grey16_to_rgb(np.asarray(image))
    if image.has_transparency_data:
        converted[ALPHA] += 1
        return alpha_to_rgb(np.asarray(image.convert("RGBA")))
    if image.mode in ("1", "L"):
        converted[GREY] += 1
    return np.asarray(image.convert("RGB"))


def alpha_to_rgb(rgba: np.ndarray) -> np.ndarray:
    """Colour with alpha, uint8 (..., 4), composited over black, uint8 (..., 3)."""
    weighted = rgba[..., :3].astype(np.uint32) * rgba[..., 3:]
    return ((weighted + 127) // 255).astype(np.uint8)  # rounded: 255 is odd, so no value falls halfway


def grey16_to_rgb(grey: np.ndarray) -> np.ndarray:
    """16-bit grey, integers (..., H, W), as uint8 RGB, (..., H, W, 3).

    Raises:
        InputError: a value outside 0 … 65535.
    """
    if grey.size and not 0 <= grey.min() <= grey.max() <= 65535:
        raise InputError(f"grey values {grey.min()} … {grey.max()} do not fit into 16 bits")
    rounded = (grey.astype(np.uint32) + 128) // 257  # 257 is odd, so no value falls halfway
    return np.repeat(rounded.astype(np.uint8)[..., None], 3, axis=-1)


def uint8_remedy(images: np.ndarray, name: str) -> str:
    """How to make uint8 of images, (N, ...), of another type, as far as their values tell."""
    if images.dtype.kind not in "bfiu" or not images.size:
        return f"make {name} uint8"
    low, high = float(images.min()), float(images.max())
    white, scaled = 255, name
    if images.dtype.kind == "b" or (images.dtype.kind == "f" and high <= 1):
        white, scaled = 1, f"({name} * 255)"
    elif images.dtype == np.uint16:
        white, scaled = 65535, f"({name} / 257)"
    how = f"use {scaled}.round().astype('uint8')" if 0 <= low and high <= white else "scale them to 0 … 255, as uint8"
    return f"values run from {low:g} to {high:g}: {how}"


def channels_last_remedy(name: str) -> str:
    """How to make images (N, H, W, C) of an array (N, C, H, W)."""
    return f"put the channels last: {name}.transpose(0, 2, 3, 1)"


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image, uint8 (H, W, 3), in another size (height, width), not keeping its aspect; itself where it fits."""
    height, width = size
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


class Fitter:
    """Holds every image of a set to one size: that of the first image, or `resize` × `resize` where given."""

    def __init__(self, resize: int | None) -> None:
        self.resize = resize
        self.num_resized = 0
        self._first: tuple[str, tuple[int, ...]] | None = None

    def fit(self, image: np.ndarray, where: Callable[[int], str], index: int) -> np.ndarray:
        """The image, (H, W, 3), in the size of the set; `where(index)` is what to call it.

        Raises:
            InputError: it has another size than the set's first image, and no `resize` is given.
        """
        if self.resize is not None and image.shape[:2] != (self.resize, self.resize):
            self.num_resized += 1
            return resize(image, (self.resize, self.resize))
        if self._first is None:
            self._first = (where(index), image.shape)
        elif image.shape != self._first[1]:
            name, shape = self._first
            raise InputError(
                f"{name} has {describe_size(shape[:2])} but {where(index)} has {describe_size(image.shape[:2])}: "
                "all images must have one size; --data.resize N makes them N × N"
            )
        return image

    def notes(self) -> tuple[str, ...]:
        """What was resized, to say aloud."""
        return count_notes({f"resized to {self.resize} × {self.resize} (bicubic)": self.num_resized})


def count_notes(counts: Mapping[str, int]) -> tuple[str, ...]:
    """Lines that say how many images something was done to."""
    return tuple(f"{count:,} image{'s' * (count > 1)} {what}" for what, count in counts.items() if count)


def one_line(error: Exception) -> str:
    """The first line of what an exception says, or its type's name if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
