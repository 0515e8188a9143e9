"""The vision transformer and its parts."""

from typing import Unpack

from pocketvit.config import override
from pocketvit.config.checks import plain
from pocketvit.config.model import ModelFields
from pocketvit.errors import InputError
from pocketvit.model.mixers import make_attention
from pocketvit.model.vit import ViT
from pocketvit.recipes import IMAGE_SIDE, recipe

__all__ = ["ViT", "create_model", "make_attention"]


def create_model(
    name: str = "paper",
    *,
    image_size: int | tuple[int, int] | None = None,
    num_classes: int = 10,
    **overrides: Unpack[ModelFields],
) -> ViT:
    """Build the model of a recipe, with overrides.

    >>> create_model("paper", num_cls_tokens=2, width=96)

    Args:
        name: of the recipe.
        image_size: side of a square image or (H, W), pixels; by default that of the recipe's own images.
        num_classes: K.
        **overrides: fields of `ModelConfig`.
    Raises:
        InputError: an unknown recipe or field, an unsupported combination, or less than one pixel or class.
    """
    config = override(recipe(name), {f"model.{field}": value for field, value in overrides.items()})
    size, classes = IMAGE_SIDE[name] if image_size is None else plain(image_size), plain(num_classes)
    sides = (size, size) if isinstance(size, int) else size
    if not (isinstance(sides, tuple | list) and len(sides) == 2 and all(_counts(side) for side in sides)):
        raise InputError(f"image_size={size!r}: must be a side or (height, width), whole numbers of at least 1")
    if not _counts(classes):
        raise InputError(f"num_classes={classes!r}: must be a whole number of at least 1")
    height, width = sides
    return ViT(config.model, image_size=(height, width), num_classes=classes)


def _counts(value: object) -> bool:
    """Whether a value is a whole number of at least 1."""
    return type(value) is int and value >= 1
