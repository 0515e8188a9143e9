"""The vision transformer and its parts."""

from typing import Unpack

from pocketvit.config import override
from pocketvit.config.checks import plain
from pocketvit.config.model import ModelFields
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
        InputError: an unknown recipe or field, or an unsupported combination.
    """
    config = override(recipe(name), {f"model.{field}": value for field, value in overrides.items()})
    size = IMAGE_SIDE[name] if image_size is None else plain(image_size)
    height, width = (size, size) if isinstance(size, int) else size
    return ViT(config.model, image_size=(height, width), num_classes=plain(num_classes))
