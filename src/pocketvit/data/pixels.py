"""Convert any image to uint8 RGB pixels of one size, by these rules.

- Gray is repeated in the three channels; black-and-white is 0 and 255.
- 16-bit gray is divided by 257 and rounded, so that 65535 becomes 255, unless `data.value_range` gives other values for
  0 and 255. (Of 16-bit color, or gray with alpha, Pillow keeps the high byte.)
- Alpha, including the transparent entries of a palette, is composited over `data.background`, by default black.
- Palette, CMYK, YCbCr, LAB and HSV are converted by Pillow's `convert("RGB")`.
- EXIF orientation is applied. Of animations and multi-page files, the first picture is used.
- Floating-point pixels are refused, because their scale is unknown.
- All images must have one size. With `--data.resize N`, those that are not N×N are resized by Pillow's bicubic filter
  (which averages over larger areas when it shrinks). `data.fit` says how: stretched, or with their aspect kept, cropped
  at the center or padded with the background.
"""

import io
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pocketvit.config.checks import describe_size
from pocketvit.config.data import DataConfig
from pocketvit.errors import InputError
from pocketvit.files import read_bytes

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "TGA")
"""The formats that are decoded, whatever a file's name. Some of Pillow's others start a program, as EPS does Ghostscript."""
MOST_PIXELS = 51_000_000
"""The most pixels of an image, those of a large camera: a file of a few kB can claim any number, and this many take up to
1.6 GiB while they are decoded."""
MOST_SIDE = 65_535  # the greatest height or width, that of JPEG; to resize a longer one takes gigabytes
_TOO_LARGE = f"it has more than {MOST_PIXELS:,} pixels: make it smaller"

GREY = "in gray, repeated in the three channels"
ALPHA = "with alpha, composited over {}"
PLAIN = DataConfig()  # how images are read by default
BACKGROUNDS = {"black": 0, "white": 255}  # value of all three channels
FITS: dict[str, Callable[..., Image.Image]] = {
    "stretch": lambda image, size, filter, color: image.resize(size, filter),
    "crop": lambda image, size, filter, color: ImageOps.fit(image, size, filter),
    "pad": ImageOps.pad,
}
"""The values of `data.fit`, with what they do."""


class Conversions(Counter[str]):
    """Conversions of images that are not 8-bit color, with the number of images, and the range of 16-bit ones."""

    least, greatest = 65535, 0
    """Of the 16-bit values."""
    levels: frozenset[int] = frozenset()
    """The 8-bit values that 16-bit images became."""

    def join(self, other: "Conversions") -> None:
        """Add those of other images."""
        self.update(other)
        self.least, self.greatest = min(self.least, other.least), max(self.greatest, other.greatest)
        self.levels |= other.levels

    def notes(self, value_range: str | tuple[int, int]) -> tuple[str, ...]:
        """Notes to print, including one if 16-bit images leave most of an automatic `data.value_range` unused."""
        low, high = self.least, self.greatest
        if value_range != "auto" or not low < high <= low + 65535 // 2:
            return count_notes(self)
        what = f"the greatest value of the 16-bit images is {high:,} of 65,535 and the least {low:,}"
        levels = f"{len(self.levels)} of 256 levels are used; --data.value-range {low} {high} uses them all"
        return *count_notes(self), f"CAUTION: {what}, so only {levels}"


class BrokenImage(InputError):
    """An image file cannot be read; the message names it."""


def decode(
    source: bytes | Path, where: str, converted: Conversions | None = None, config: DataConfig = PLAIN
) -> np.ndarray:
    """Read one image file; all image files are read here.

    Args:
        source: the file's content, or its path.
        where: its name in messages, such as "train.parquet, row 7".
        converted: counts conversions of images that are not 8-bit color.
        config: how to read it.
    Returns:
        pixels, uint8, (H, W, 3).
    Raises:
        BrokenImage: empty, truncated, corrupt, not a regular file, of an unknown format, too large, or with
            floating-point pixels.
    """
    try:
        content = read_bytes(source) if isinstance(source, Path) else source
    except OSError as error:
        raise BrokenImage(f"{where}: cannot be read: {error.strerror}") from error
    if not content:
        raise BrokenImage(f"{where}: the image is empty (0 bytes); replace or remove it")
    try:
        Image.init()
        formats = [name for name in FORMATS if name in Image.OPEN]  # AVIF is missing before Pillow 11.3
        with warnings.catch_warnings(category=Image.DecompressionBombWarning, action="error"):
            image = Image.open(io.BytesIO(content), formats=formats)
        with image:
            return to_rgb(image, converted, config)
    except UnidentifiedImageError as error:
        why = f"not in a supported image format ({', '.join(FORMATS)})"
        raise BrokenImage(f"{where}: {why}; replace or remove it") from error
    except InputError as error:
        raise BrokenImage(f"{where}: {error}") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:  # Pillow's own, laxer bound
        raise BrokenImage(f"{where}: {_TOO_LARGE}") from error
    # On broken bytes, Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more.
    except Exception as error:
        why = f"the image is truncated or corrupt ({one_line(error)})"
        raise BrokenImage(f"{where}: {why}; replace or remove it") from error


def to_rgb(image: Image.Image, converted: Conversions | None = None, config: DataConfig = PLAIN) -> np.ndarray:
    """A Pillow image as uint8 RGB pixels, (H, W, 3), by the rules above.

    Raises:
        InputError: more than `MOST_PIXELS` or longer than `MOST_SIDE`, floating-point pixels, integers outside 0 … 65535,
            or an opened file that is of none of the `FORMATS`.
    """
    if image.format not in (None, "MPO", *FORMATS):  # MPO is some cameras' form of JPEG
        raise InputError(f"{image.format} is not a supported image format: {', '.join(FORMATS)}")
    if image.width * image.height > MOST_PIXELS:
        raise InputError(_TOO_LARGE)
    if max(image.size) > MOST_SIDE:
        raise InputError(f"it is more than {MOST_SIDE:,} pixels long: make it smaller")
    converted = Conversions() if converted is None else converted
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise InputError("the scale of floating-point pixels is unknown: save them with 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return grey16_to_rgb(np.asarray(image), converted, config)
    if image.has_transparency_data:
        return alpha_to_rgb(np.asarray(image.convert("RGBA")), converted, config)
    if image.mode in ("1", "L"):
        converted[GREY] += 1
    return np.asarray(image.convert("RGB"))


def alpha_to_rgb(rgba: np.ndarray, converted: Conversions, config: DataConfig) -> np.ndarray:
    """An image with alpha, uint8 (H, W, 4), composited over the background, uint8 (H, W, 3)."""
    converted[ALPHA.format(config.background)] += 1
    color, alpha = rgba[..., :3].astype(np.uint16), rgba[..., 3:]
    color *= alpha  # in place and in 16 bits, enough for 255² + 127, to save memory
    color += np.uint16(BACKGROUNDS[config.background]) * (255 - alpha)
    color += 127
    color //= 255  # rounded: 255 is odd, so no value falls halfway
    rgb = color.astype(np.uint8)
    if (rgb == rgb[:1, :1]).all() and not (rgba == rgba[:1, :1]).all():
        other = next(name for name in BACKGROUNDS if name != config.background)
        converted[f"became a single color; try --data.background {other}"] += 1
    return rgb


def grey16_to_rgb(grey: np.ndarray, converted: Conversions, config: DataConfig = PLAIN) -> np.ndarray:
    """16-bit gray, integers (..., H, W), as uint8 RGB, (..., H, W, 3).

    Raises:
        InputError: a value outside 0 … 65535.
    """
    if grey.size and not 0 <= grey.min() <= grey.max() <= 65535:
        raise InputError(f"gray values {grey.min()} … {grey.max()} do not fit into 16 bits")
    low, high = (0, 65535) if config.value_range == "auto" else config.value_range
    scaled = np.clip(grey, low, high).astype(np.int32)  # in place from here on
    scaled -= low
    scaled *= 2 * 255
    scaled += high - low  # to round halves up
    scaled //= 2 * (high - low)
    rounded = scaled.astype(np.uint8)
    how = "divided by 257 and repeated" if (low, high) == (0, 65535) else f"{low} to {high} spread over 0 to 255"
    converted[f"in 16-bit gray, {how} in the three channels"] += 1
    converted.least = min(converted.least, int(grey.min(initial=65535)))
    converted.greatest = max(converted.greatest, int(grey.max(initial=0)))
    converted.levels |= frozenset(np.unique(rounded).tolist())
    return np.repeat(rounded[..., None], 3, axis=-1)


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


def resize(image: np.ndarray, size: tuple[int, int], config: DataConfig = PLAIN) -> np.ndarray:
    """An image, uint8 (H, W, 3), resized to (height, width) as `config` says."""
    if image.shape[:2] == size:
        return image
    fill = (BACKGROUNDS[config.background],) * 3
    return np.asarray(FITS[config.fit](Image.fromarray(image), size[::-1], Image.Resampling.BICUBIC, color=fill))


class Fitter:
    """Ensures that all images have one size: that of the first image, or `data.resize` squared if given."""

    def __init__(self, config: DataConfig = PLAIN) -> None:
        self.config = config
        self.num_resized = 0
        self._first: tuple[str, tuple[int, ...]] | None = None

    def fit(self, image: np.ndarray, where: Callable[[int], str], index: int) -> np.ndarray:
        """The image, (H, W, 3), in the common size; `where(index)` is its name.

        Raises:
            InputError: it has another size than the first image, and `data.resize` is none.
        """
        side = self.config.resize
        if side is not None and image.shape[:2] != (side, side):
            self.num_resized += 1
            return resize(image, (side, side), self.config)
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
        """Notes to print on resized images."""
        side, fit = self.config.resize, self.config.fit
        how = "bicubic" if fit == "stretch" else f"bicubic, {fit}"
        return count_notes({f"resized to {side} × {side} ({how})": self.num_resized})


def count_notes(counts: Mapping[str, int]) -> tuple[str, ...]:
    """Notes with numbers of images."""
    return tuple(f"{count:,} image{'s' * (count > 1)} {what}" for what, count in counts.items() if count)


def one_line(error: Exception) -> str:
    """The first line of an exception's message, or the name of its type if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
