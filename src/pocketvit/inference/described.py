"""The fields of a trained model, for a run that starts with it."""

from collections.abc import Mapping
from math import isqrt
from typing import Any

from torch import Tensor

from pocketvit.config import ModelConfig
from pocketvit.config.weights import Weights
from pocketvit.errors import InputError
from pocketvit.inference.foreign import from_timm
from pocketvit.inference.trained_model import read_tensors
from pocketvit.model.tokens import POSITIONS, SPECIAL
from pocketvit.usercode import REFERENCE

TIMM_HEAD_DIM = 64  # channels of a head in most of timm's models; their tensors do not show it


def described(weights: Weights) -> tuple[ModelConfig, int | None]:
    """A trained model's fields, and the side of its images in pixels if they are square.

    Raises:
        InputError: it cannot be read, is of another kind, or has user-defined code.
    """
    tensors, about = read_tensors(weights)
    if about is None:
        fields, side = of_timm(from_timm(tensors, weights))
    else:
        fields, (height, width) = about.model, about.image_size
        side = height if height == width else None
        if code := [str(value) for value in fields.values() if isinstance(value, str) and REFERENCE.fullmatch(value)]:
            raise InputError(
                f"init_from={weights} has user-defined code, {code[0]}; start from its run's fields: --config "
                "RUN/config.yaml --init-from RUN --allow-code"
            )
    try:
        return ModelConfig(**fields), side
    except TypeError as error:
        raise InputError(f"init_from={weights} has fields that this version does not know: {error}") from error
    except InputError as error:
        raise InputError(f"init_from={weights}: {error}") from error


def of_timm(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], int | None]:
    """The fields of timm's model, and the side of its images if they were square, by the shapes of its tensors.

    Args:
        tensors: under our names.
    """
    shape = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    width, patch_size = shape["tokens.patches.proj.weight"][0], shape["tokens.patches.proj.weight"][-1]
    head_dim = shape.get("blocks.0.attn.q_norm.weight", (TIMM_HEAD_DIM,))[0]
    special = {name: shape[f"tokens.{name}"][1] for name in SPECIAL if f"tokens.{name}" in shape}
    fields = {
        "patch_size": patch_size,
        "width": width,
        "depth": len({name.split(".")[1] for name in shape if name.startswith("blocks.")}),
        "num_heads": max(1, width // head_dim),
        "mlp_ratio": shape.get("blocks.0.mlp.fc1.weight", (4 * width,))[0] / width,
        "num_cls_tokens": special.get("cls", 1),
        "pool": "cls" if "cls" in special else "mean",
        "num_registers": special.get("registers", 0),
        "layer_scale": 1e-5 if "blocks.0.scale1.gamma" in shape else None,
        "qk_norm": "blocks.0.attn.q_norm.weight" in shape,
    }
    rows = isqrt(max(0, shape.get(POSITIONS, (1, 0))[1] - sum(special.values())))
    return fields, rows * patch_size or None
