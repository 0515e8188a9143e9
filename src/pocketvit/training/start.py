"""Trained models that a run starts from, `init_from`, or learns from, `objective.teacher`.

Shapes: N tokens, of them P patches in a grid of rows × columns, D width.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pocketvit.config import ModelConfig
from pocketvit.config.checks import describe_size
from pocketvit.config.objective import WITHOUT_LABELS
from pocketvit.config.training import Kernels
from pocketvit.config.weights import Weights
from pocketvit.errors import InputError
from pocketvit.inference.foreign import from_timm
from pocketvit.inference.model_file import About, read_tensors, read_weights
from pocketvit.inference.trained_model import TrainedModel, load_model
from pocketvit.model import ViT
from pocketvit.model.tokens import POSITIONS, SPECIAL
from pocketvit.usercode import REFERENCE

FC_NORM = (
    "that model normalized the mean of its tokens, this one each token, so the same weights compute something else here"
)
HEADS = ("head.", "distilled_head.")

SILENT = ("num_heads", "activation", "patch_stride", "block_repeats")
"""Fields by which the same weights compute something else, although their shapes do not show it."""


@dataclass(frozen=True)
class Start:
    """What a model has been started from."""

    taken: Collection[str] = ()
    """Names of the tensors that were taken over."""
    images: int | None = 0
    """Training images that the weights have seen; None if their file does not say."""
    notes: Sequence[str] = ()
    """What was taken over and what was not, in lines; the last one counts the tensors."""


@torch.no_grad()
def start_from(model: ViT, class_names: Collection[str], weights: Weights) -> Start:
    """Overwrite a new model's weights with those of a trained one that have the same name and shape.

    The head is taken over for the same classes only, and only if the model has learned them: without labels, its head was a
    probe beside it. timm's files do not name their classes. Learned positions of another grid are interpolated, bicubically
    as in timm.

    Raises:
        InputError: neither a model's file nor timm's, or none of its blocks fits.
    """
    found, about = read_tensors(weights)
    found = {name: tensor.float() if tensor.dtype == torch.bfloat16 else tensor for name, tensor in found.items()}
    notes: list[str] = []
    if about is None:
        notes += [FC_NORM] if "fc_norm.weight" in found else []
        found = from_timm(found, weights)
    for name in (POSITIONS, *(f"tokens.{special}" for special in SPECIAL)):
        if name in found and (found[name].ndim != 3 or found[name].dtype != torch.float32):
            what = f"{found[name].dtype} {tuple(found[name].shape)}"
            raise InputError(f"init_from={weights}: {name} is {what}; expected torch.float32 with three axes")
    if about is not None:
        found = _for_these_classes(found, about, class_names)
        notes += _differences(about, model)
    own = model.state_dict()
    if POSITIONS in found and POSITIONS in own:
        ratio = 1.0 if about is None else about.image_size[0] / about.image_size[1]
        found[POSITIONS], note = fitted_positions(found, own, ratio, model.tokens.patches.grid)
        notes += [note] if note else []
    taken = {name for name, tensor in found.items() if name in own and tensor.shape == own[name].shape}
    if not any(name.startswith("blocks.") for name in taken):
        widths = [tensor.numel() for name, tensor in found.items() if name in ("norm.weight", "blocks.0.norm1.weight")]
        same = f"give it the same model.width{f', {widths[0]}' if widths else ''}"
        raise InputError(f"init_from={weights}: none of its blocks fits this model; {same}")
    if about is None and taken & {"head.weight"}:
        notes.append(f"the head is kept, though the file does not name its {len(class_names)} classes")
    for name in taken:
        own[name].copy_(found[name])
    counted = f"{len(taken)} of {len(own)} tensors from {weights}"
    for names, what in ((own.keys() - taken, "new"), (found.keys() - own.keys(), "not needed")):
        counted += f"; {what}: {', '.join(_grouped(names))}" if names else ""
    return Start(taken, None if about is None else about.images, [*notes, counted])


def _for_these_classes(found: dict[str, Tensor], about: About, class_names: Collection[str]) -> dict[str, Tensor]:
    """A trained model's tensors, with its head if it has learned the same classes."""
    if about.objective not in WITHOUT_LABELS and tuple(about.class_names) == tuple(class_names):
        return found
    return {name: tensor for name, tensor in found.items() if not name.startswith(HEADS)}


def _differences(about: About, model: ViT) -> list[str]:
    """Lines on what a trained model was that tensors do not show."""
    own = vars(model.config)
    held = vars(ModelConfig()) | dict(about.model)
    differ = [f"model.{name}={held[name]}" for name in SILENT if held[name] != own[name]]
    lines = [f"that model had {', '.join(differ)}, so the same weights compute something else here"] if differ else []
    if about.objective in WITHOUT_LABELS:
        lines.append(f"the head is new: {about.objective} learns without labels, so the head was only a probe")
    return lines


def load_teacher(weights: Weights, model: ViT, class_names: tuple[str, ...], kernels: Kernels) -> TrainedModel:
    """The trained model that another one learns from, on that one's device.

    Args:
        model: that learns.
        class_names: of the data.
        kernels: the implementation that it runs with.
    Raises:
        InputError: it cannot be read, has user-defined code, or has other classes or another image size.
    """
    _, about = read_weights(weights)
    if any(isinstance(value, str) and REFERENCE.fullmatch(value) for value in about.model.values()):
        raise InputError(f"objective.teacher={weights} has user-defined code, which a teacher cannot have")
    teacher = load_model(weights.path, next(model.parameters()).device)
    if teacher.multilabel:
        raise InputError(
            f"objective.teacher={weights} was trained on several classes an image; give one that names a single"
        )
    if teacher.class_names != class_names:
        raise InputError(f"objective.teacher={weights} was trained on other classes: {', '.join(teacher.class_names)}")
    if teacher.model.image_size != model.image_size:
        sizes = describe_size(teacher.model.image_size), describe_size(model.image_size)
        raise InputError(
            f"objective.teacher={weights} takes images of {sizes[0]}, but the run has images of {sizes[1]}"
        )
    teacher.model.requires_grad_(False)
    teacher.model.use_kernels(kernels)
    return teacher


def fitted_positions(
    found: Mapping[str, Tensor], own: Mapping[str, Tensor], ratio: float, grid: tuple[int, int]
) -> tuple[Tensor, str]:
    """A trained model's table of positions (1, N', D) for the tokens of another model, (1, N, D).

    Args:
        found: the trained model's tensors.
        own: those of the other model; its positions stay where tokens that are no patches differ in number.
        ratio: height over width of the trained model's images.
        grid: rows and columns of the other model's patches.
    Returns:
        the table, or the trained one as it is if that cannot be fitted; and a note if it was interpolated.
    """
    table, fitted = found[POSITIONS], own[POSITIONS].clone()
    special, own_special = (
        sum(t[f"tokens.{name}"].shape[1] for name in SPECIAL if f"tokens.{name}" in t) for t in (found, own)
    )
    patches = table[:, special:]
    rows = round((patches.shape[1] * ratio) ** 0.5)
    if table.shape[2] != fitted.shape[2] or not rows or patches.shape[1] % rows:
        return table, ""
    note = ""
    if special == own_special:
        fitted[:, :special] = table[:, :special]
    if (rows, patches.shape[1] // rows) != grid:
        image = patches.unflatten(1, (rows, -1)).permute(0, 3, 1, 2)  # (1, D, rows', columns')
        image = F.interpolate(image, grid, mode="bicubic", antialias=True, align_corners=False)
        note = f"positions interpolated from {rows} × {patches.shape[1] // rows} to {grid[0]} × {grid[1]} patches"
        patches = image.flatten(2).transpose(1, 2)  # (1, P, D)
    fitted[:, own_special:] = patches
    return fitted, note


def _grouped(names: Iterable[str]) -> list[str]:
    """Names of tensors, the blocks' once for all blocks."""
    return sorted({re.sub(r"^blocks\.\d+\.", "blocks.*.", name) for name in names})
