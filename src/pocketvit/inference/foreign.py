"""Weights of others: a state dict of timm's `VisionTransformer`, under our names.

The blocks are the same, pre-norm with fused queries, keys and values, so that a model with the same configuration gives the
same logits.

Source: https://github.com/huggingface/pytorch-image-models/blob/main/timm/models/vision_transformer.py

Shapes: N tokens, of them P patches, D width.
"""

import io
import math
import pickle
import zipfile
from collections.abc import Mapping

import torch
from torch import Tensor

from pocketvit.config.weights import Weights
from pocketvit.data.pixels import one_line
from pocketvit.errors import InputError
from pocketvit.inference.timm_names import our_name
from pocketvit.model.tokens import POSITIONS, SPECIAL

ALWAYS_THERE = ("patch_embed.proj.weight", "blocks.0.norm1.weight", "blocks.0.attn.qkv.weight")
WRAPPERS = ("model", "state_dict")  # keys under which training scripts put a model's tensors


def unpickled(content: bytes, where: str) -> dict[str, Tensor]:
    """The tensors in a file of PyTorch's own format; the only place where the project reads one.

    Such a file is a pickle, which could run any code, so it is read by PyTorch's restricted reader. Nothing in it takes more
    memory than the file has bytes.

    Args:
        where: name of the file in messages.
    Raises:
        InputError: another format or content, or anything but tensors by name.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                raise InputError(f"{where} is compressed, which PyTorch's files are not: refused")
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except zipfile.BadZipFile as error:
        raise InputError(
            f"{where} is not a file that torch.save writes since PyTorch 1.6; save it again, or as .safetensors"
        ) from error
    except (pickle.UnpicklingError, RuntimeError, ValueError, KeyError, TypeError, EOFError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{where} holds more than tensors, or is damaged ({one_line(error)}); save the model's state_dict() alone"
        ) from error
    for wrapper in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    if not isinstance(found, Mapping) or not all(_plain(tensor, len(content)) for tensor in found.values()):
        raise InputError(f"{where} holds something else than tensors by name; save the model's state_dict() alone")
    return {str(name): tensor for name, tensor in found.items()}


def _plain(tensor: object, most: int) -> bool:
    """Whether something is an ordinary tensor of at most so many bytes, also if it repeats its memory."""
    return isinstance(tensor, Tensor) and tensor.layout == torch.strided and tensor.nbytes <= most


def from_timm(tensors: Mapping[str, Tensor], weights: Weights) -> dict[str, Tensor]:
    """The tensors of timm's `VisionTransformer`, in float32, under our names; those that have none here keep theirs.

    Positions of patches alone (`no_embed_class`) get zeros for the other tokens, which is the same.

    Raises:
        InputError: they are not of such a model.
    """
    if not all(name in tensors and tensors[name].ndim for name in ALWAYS_THERE):
        some = ", ".join(list(tensors)[:3]) or "none"
        raise InputError(
            f"init_from={weights} is not a model that PocketViT saved, nor a state dict of timm's VisionTransformer; its "
            f"tensors are {some}, …"
        )
    found = {our_name(name): tensor.float() for name, tensor in tensors.items()}
    special = [found[f"tokens.{name}"] for name in SPECIAL if f"tokens.{name}" in found]
    positions = found.get(POSITIONS)
    if positions is not None and positions.ndim == 3 and all(token.ndim == 3 for token in special):
        num_special, num_positions = sum(token.shape[1] for token in special), positions.shape[1]
        if not _is_square(num_positions - num_special) and _is_square(num_positions):
            found[POSITIONS] = torch.cat([positions.new_zeros(1, num_special, positions.shape[2]), positions], dim=1)
    return found


def _is_square(number: int) -> bool:
    return number > 0 and math.isqrt(number) ** 2 == number
