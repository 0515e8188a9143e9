"""Recipes: functions that return a `RunConfig`, with the accuracy and the time it reaches."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import log2, sqrt
from statistics import median

from pocketvit.config import AugmentConfig, DataConfig, ModelConfig, OptimConfig, RunConfig, ScheduleConfig, TrainConfig
from pocketvit.config.checks import unknown
from pocketvit.errors import InputError


def digits() -> RunConfig:
    """The default: scikit-learn's 8 × 8 digits with a small model; under a minute on two CPU cores.

    Not from the paper: it needs no download and no GPU.
    """
    return RunConfig(
        recipe="digits",
        batch_size=64,
        model=ModelConfig(patch_size=4, width=64, depth=4, num_heads=4, drop_path=0.0),
        data=DataConfig(source="digits"),
        augment=AugmentConfig(
            flip_prob=0.0, crop_pad=1, policy="none", erase_prob=0.0, cutmix_prob=0.0, mixup_prob=0.0
        ),
        optim=OptimConfig(lr=4e-3),
        schedule=ScheduleConfig(passes=60, warmup_passes=6),
        train=TrainConfig(eval_every_passes=5),
    )


def paper() -> RunConfig:
    """The baseline of Wu 2025, "Powerful Design of Small Vision Transformer on CIFAR10" (93.65 % there, one seed)."""
    return RunConfig(recipe="paper", data=DataConfig(source="cifar10"), optim=OptimConfig(lr=2e-3))


def minute() -> RunConfig:
    """The best accuracy found for one minute on an H100 with fused kernels: 94.29 ± 0.11 % on CIFAR-10 (five seeds).

    The paper's model and augmentation with Muon, half as many passes, overlapping patches and larger batches, chosen on
    held-out training images (docs/minute.md).
    """
    return RunConfig(
        recipe="minute",
        batch_size=512,
        model=ModelConfig(patch_size=8, patch_stride=4, activation="gelu_tanh"),
        data=DataConfig(source="cifar10"),
        optim=OptimConfig(name="muon", lr=2e-3),
        schedule=ScheduleConfig(passes=160, warmup_passes=8),
        train=TrainConfig(eval_every_passes=16),
    )


def photos(num_images: int = 240, sizes: Sequence[tuple[int, int]] = ((32, 32),), side: int | None = None) -> RunConfig:
    """For a folder of your own images: adapts to their number and size; a few hundred take about two minutes on two cores.

    `pocketvit train --data FOLDER` takes it. Small square images of one size stay as they are, others are cropped to
    squares. What few images do not teach is built in: whitened overlapping patches, relative positions, and their mean.

    Args:
        num_images: to train on.
        sizes: of some of them, (height, width), pixels.
        side: that they are resized to; chosen by their sizes if None.
    """
    short = median(min(size) for size in sizes) if sizes else 32
    if side is None and set(sizes) != {(short, short)} or short > LARGEST_KEPT:
        side = side or (32 if short < 48 else 64)
    drawn = side or int(short)
    stride = min((n for n in range(1, drawn // 2 + 1) if drawn % n == 0), key=lambda n: abs(n - drawn / 8), default=1)
    passes = min(400, max(10, round(200 * sqrt(240 / max(num_images, 1)))))
    return RunConfig(
        recipe="photos",
        batch_size=_batch_size(num_images),
        model=ModelConfig(
            patch_size=min(2 * stride, drawn), patch_stride=stride, patch_init="whitening", pool="mean", positions="rope",
            width=64, depth=4, num_heads=4, drop_path=0.0,
        ),
        data=DataConfig(resize=side, fit="crop"),
        augment=AugmentConfig(
            crop_pad=drawn // 8, policy="trivialaugment", erase_prob=0.0, cutmix_prob=0.0, mixup_prob=0.0
        ),
        optim=OptimConfig(name="muon"),
        schedule=ScheduleConfig(passes=passes, warmup_passes=max(1, passes // 20), warmup_frac=0.05),
        train=TrainConfig(eval_every_passes=max(1, passes // 8)),
    )  # fmt: skip


def finetune(model: ModelConfig | None = None, num_images: int = 240, side: int | None = 32) -> RunConfig:
    """For few images and a trained model (`--init-from RUN`), whose fields and image size it takes; minutes on two CPU cores.

    A few hundred images are passed over fifty times, many thousands ten times or less. Fine-tuning's usual settings: lower
    layers learn more slowly (BEiT's decay by layer), flips and crops are all the augmentation, a short warm-up. It claims no
    accuracy, which depends on the model that it starts with.

    Args:
        model: the trained model's fields.
        num_images: to train on.
        side: of the trained model's images in pixels, to which others are resized; None if they were not square.
    """
    passes = min(100, max(5, round(50 * sqrt(240 / max(num_images, 1)))))
    return RunConfig(
        recipe="finetune",
        batch_size=_batch_size(num_images),
        model=replace(model or ModelConfig(), drop_path=0.0),
        data=DataConfig(resize=side, fit="crop"),
        augment=AugmentConfig(
            crop_pad=(side or 32) // 8, policy="none", erase_prob=0.0, cutmix_prob=0.0, mixup_prob=0.0
        ),
        optim=OptimConfig(lr=1e-3, layer_decay=0.75),
        schedule=ScheduleConfig(passes=passes, warmup_passes=max(1, passes // 10), warmup_frac=0.1),
        train=TrainConfig(eval_every_passes=max(1, passes // 8)),
    )


def _batch_size(num_images: int) -> int:
    """Images per step for so many to train on: more for more, and never all."""
    return min(256, max(8, 2 ** round(log2(2 * sqrt(max(num_images, 1))))), 3 * num_images // 4 or 1)


LARGEST_KEPT = 64  # pixels a side up to which `photos` leaves squares of one size as they are

RECIPES: dict[str, Callable[[], RunConfig]] = {
    "photos": photos,
    "finetune": finetune,
    "digits": digits,
    "paper": paper,
    "minute": minute,
}
ADAPTED = ("photos", "finetune")  # recipes that the command line adapts to the images

*_first, _last = RECIPES
NAMES = f"{', '.join(_first)} or {_last}"  # all of them in words

IMAGE_SIDE = {
    "digits": 8,
    "paper": 32,
    "minute": 32,
    "photos": 32,
    "finetune": 32,
}  # pixels a side of the images of each recipe


def about(name: str) -> str:
    """A recipe's name and description in one line."""
    return f"{name}: {(RECIPES[name].__doc__ or '').partition(chr(10))[0]}"


def recipe(name: str) -> RunConfig:
    """The configuration of a named recipe.

    Args:
        name: one of `RECIPES`.
    Raises:
        InputError: no recipe of that name.
    """
    if name not in RECIPES:
        raise InputError(unknown("recipe", name, RECIPES))
    return RECIPES[name]()
