"""Recipes: functions that return a `RunConfig`, with the accuracy and the time it reaches."""

from collections.abc import Callable

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
    """The best accuracy we found for one minute on an H100: 94.29 ± 0.11 % on CIFAR-10 (five seeds).

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


RECIPES: dict[str, Callable[[], RunConfig]] = {"digits": digits, "paper": paper, "minute": minute}

*_first, _last = RECIPES
NAMES = f"{', '.join(_first)} or {_last}"  # all of them in words

IMAGE_SIDE = {"digits": 8, "paper": 32, "minute": 32}  # side of the square images that a recipe trains on, pixels


def about(name: str) -> str:
    """A recipe's name and description in one line."""
    return f"{name}: {(RECIPES[name].__doc__ or '').partition(chr(10))[0]}"


def recipe(name: str) -> RunConfig:
    """The configuration of a named recipe.

    Raises:
        InputError: no recipe of that name.
    """
    if name not in RECIPES:
        raise InputError(unknown("recipe", name, RECIPES))
    return RECIPES[name]()
