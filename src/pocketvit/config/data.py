"""The sections `data` and `augment`: the images and their augmentation."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypedDict

from pocketvit.config.checks import Bounds, Count, Fraction, Natural, Positive, Probability, Seed, check_types
from pocketvit.errors import InputError
from pocketvit.usercode import Code

LARGEST_SIDE = 4_096  # largest side in pixels that images can be resized to; one such image takes 48 MiB


class ReadingFields(TypedDict, total=False):
    """The fields of `DataConfig` that decide which pixels and labels are read from the files of a source."""

    resize: int | None
    fit: Literal["stretch", "crop", "pad"]
    value_range: Literal["auto"] | tuple[int, int]
    background: Literal["black", "white"]
    skip_unreadable: bool
    image_column: str | None
    label_column: str | None
    label_separator: str | None


READING = tuple(ReadingFields.__annotations__)

MEMORY = "memory"  # `data.source` of a run with images in memory, passed from Python; a folder of this name is ./memory


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the images come from, how they are split, and in what order a pass takes them."""

    source: str = "digits"
    """A known name (see `pocketvit data list`), a path, or hf:OWNER/NAME."""
    format: str | None = None
    """The format of a path; none detects it."""
    resize: Annotated[int, Bounds(1, LARGEST_SIDE)] | None = None
    """Resize every image to a square of this many pixels a side; none keeps the size."""
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    """How resizing makes an image square: stretch it, crop its center, or pad it with the background."""
    value_range: Literal["auto"] | tuple[int, int] = "auto"
    """Values of 16-bit gray images that become 0 and 255; auto is 0 65535, and reports the range that the images use."""
    background: Literal["black", "white"] = "black"
    """Background behind transparent images."""
    skip_unreadable: bool = False
    """Leave out images that cannot be read; else they are listed and nothing is trained."""
    image_column: str | None = None
    """Column of a parquet or CSV file that holds the images or their files; none finds it by its name."""
    label_column: str | None = None
    """Column that holds the labels, such as coarse_label of CIFAR-100; none finds it by its name."""
    label_separator: str | None = None
    """Between the classes in a label of a CSV file, such as | or ;, if an image may have several; none: a label is one class."""
    val_frac: Fraction = 0.0
    """Fraction of the training images held out for validation; the test images are then used once, at the end."""
    test_frac: Annotated[float, Bounds(0, 1, open_left=True, open_right=True)] = 0.2
    """Fraction held out for testing if the source has no test split."""
    split_seed: Seed = 0
    """Seed of these two splits; separate from the run's seed, so that runs with different seeds share the splits."""
    repeats: Literal["fresh", "batch"] = "fresh"
    """fresh: a pass is one shuffle of the images; batch: each image `num_repeats` times in a row, then each batch shuffled."""
    num_repeats: Count = 3
    """Copies of each image with repeats=batch; that many passes share one shuffle."""
    balance: Literal["none", "loss", "sampling"] = "none"
    """For uneven classes. loss: weigh each class by 1 / its number of images; sampling: as many images of each in a pass."""
    cache_dir: Path | None = None
    """Folder for downloaded and decoded data sets; by default $POCKETVIT_DATA or ~/.cache/pocketvit."""
    keep: Literal["auto", "gpu", "host", "disk"] = "auto"
    """Where training images for a GPU are kept: in its memory, in pinned host memory, or on disk; auto: where they fit."""

    def __post_init__(self) -> None:
        check_types("data", self)
        if self.label_separator == "":
            raise InputError("data.label_separator='': must have at least one character")
        if self.balance == "sampling" and self.repeats == "batch":
            raise InputError(
                "data.balance=sampling cannot be combined with data.repeats=batch, which repeats all images"
            )
        if self.value_range != "auto" and not 0 <= self.value_range[0] < self.value_range[1] <= 65535:
            raise InputError(f"data.value_range={self.value_range}: must satisfy 0 <= least < greatest <= 65535")


Operation = Literal[
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "color", "contrast", "brightness",
    "sharpness", "posterize", "solarize", "autocontrast", "equalize", "invert",
]  # fmt: skip
"""Operations on images. The position is the operation's code in tables and kernels: append only."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Augmentation, in the order of the fields. A probability or padding of 0 or the policy none turns a part off."""

    flip_prob: Probability = 0.5
    """Probability of a horizontal flip."""
    flips: Literal["random", "alternating"] = "random"
    """Flips drawn anew in every pass, or only in the first; then each image is flipped in every other pass."""
    crop_pad: Natural = 4
    """Random crop after padding with this many black pixels on each side; 0 turns it off."""
    policy: Literal["none", "cifar10", "svhn", "imagenet", "randaugment", "trivialaugment"] | Code = "cifar10"
    """AutoAugment's policy for one of three data sets, RandAugment, TrivialAugment; or FILE.py:NAME, a function."""
    skip_ops: tuple[Operation, ...] = ()
    """Operations of the policy to skip, such as rotate; they leave the image unchanged."""
    randaugment_ops: Count = 2
    """Number of RandAugment operations per image."""
    randaugment_level: Annotated[int, Bounds(0, 9)] = 4
    """Strength of RandAugment's operations, 0 … 9."""
    erase_prob: Probability = 0.25
    """Probability of random erasing."""
    erase_area: tuple[float, float] = (0.02, 0.4)
    """Least and greatest erased area as a fraction of the image."""
    erase_aspect: tuple[float, float] = (0.3, 1 / 0.3)
    """Least and greatest ratio of the erased box's height to its width, drawn uniformly."""
    cutmix_prob: Probability = 0.25
    """Probability that a batch is mixed by CutMix."""
    mixup_prob: Probability = 0.25
    """Probability that a batch is mixed by MixUp."""
    cutmix_alpha: Positive = 1.0
    """Both parameters of CutMix's Beta distribution."""
    mixup_alpha: Positive = 1.0
    """Both parameters of MixUp's Beta distribution."""

    def __post_init__(self) -> None:
        check_types("augment", self)
        if self.flips == "alternating" and not self.flip_prob:
            raise InputError("augment.flips=alternating has no effect with augment.flip_prob=0, which flips no image")
        if self.cutmix_prob + self.mixup_prob > 1:
            raise InputError(
                f"augment.cutmix_prob={self.cutmix_prob} and augment.mixup_prob={self.mixup_prob} add up to more than 1"
            )
        for name, top in (("erase_area", 1.0), ("erase_aspect", float("inf"))):
            low, high = getattr(self, name)
            if not 0 < low <= high <= top:
                raise InputError(f"augment.{name}=({low}, {high}): must satisfy 0 < least <= greatest <= {top}")
