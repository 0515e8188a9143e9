"""What a model's tokens read of each other, and what that says about a prediction.

Shapes: L attention layers, each counted as often as it is applied, B images, A heads, T tokens that the head reads, N tokens,
K classes, C channels, H W pixels.

Sources: rollout: Abnar and Zuidema 2020, https://arxiv.org/abs/2005.00928; gradient-weighted: Chefer et al. 2021, "Generic
Attention-model Explainability", https://arxiv.org/abs/2103.15679, equations 5 and 6 (self-attention alone)
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from pocketvit.augment.augment import normalise
from pocketvit.errors import InputError
from pocketvit.inference.logits import as_tensor
from pocketvit.model import ViT
from pocketvit.model.mixers import MIXERS, Mixer
from pocketvit.usercode import Code


@dataclass(frozen=True)
class AttentionMaps:
    """The attention of B images, on the CPU. Tokens are in the order of `pocketvit.model.tokens.Tokens`."""

    weights: Tensor = field(repr=False)
    """What each token (row) reads of each token's value (column), (L, B, A, N, N).

    Rows of softmax attention sum to 1. Linear attention never computes these weights but reads as if by them; with rotary
    positions its rows need not sum to 1, and a weight may be negative. Tokens that a head of sparse attention does not read
    have weight 0.
    """
    gradients: Tensor = field(repr=False)
    """Of the logit of `classes` with respect to the weights, (L, B, A, N, N)."""
    logits: Tensor = field(repr=False)
    """(B, K)."""
    classes: Tensor
    """(B,)."""
    grid: tuple[int, int]
    """Rows and columns of patches, which are the last tokens."""
    num_cls: int
    """CLS tokens, which are the first; 0 if the head reads the patches."""

    def rollout(self) -> Tensor:
        """How much of each token's input (column) reaches each token (row) through all layers, (B, N, N).

        The mean over the heads, and the residual stream as a half; MLPs do not move anything between tokens. The same for
        every class. Negative weights count as 0.
        """
        one = torch.eye(self.weights.shape[-1], dtype=self.weights.dtype)
        mixed = self.weights.mean(dim=2).clamp(min=0) + one  # (L, B, N, N)
        return reduce(lambda below, layer: layer @ below, mixed / mixed.sum(dim=3, keepdim=True))

    def gradient_weighted(self) -> Tensor:
        """How much each token (row) has gathered of each other (column) in favor of `classes`, (B, N, N).

        The weights of each layer count as far as more of them would raise the logit, in the mean over the heads. Without the
        identity that the method begins with, since only the differences between the patches matter.
        """
        gain = (self.weights * self.gradients).clamp(min=0).mean(dim=2)  # (L, B, N, N)
        one = torch.eye(gain.shape[-1], dtype=gain.dtype)
        return reduce(lambda below, layer: below + layer @ below, gain, one) - one

    def on_patches(self, maps: Tensor) -> Tensor:
        """What the head's tokens take from each patch, by maps (..., N, N): (..., T, rows, columns).

        T is the number of CLS tokens; without any, it is 1: the mean over all patches, which the head pools.
        """
        rows, columns = self.grid
        patches = maps[..., -rows * columns :]  # (..., N, P)
        if self.num_cls:
            return patches[..., : self.num_cls, :].unflatten(-1, self.grid)
        return patches[..., -rows * columns :, :].mean(dim=-2, keepdim=True).unflatten(-1, self.grid)


def attention_maps(
    model: ViT, images: np.ndarray, mean: Tensor, std: Tensor, classes: Sequence[int] | None = None
) -> AttentionMaps:
    """See `TrainedModel.attention_maps`; `mean` and `std` as for `pocketvit.inference.logits.in_batches`."""
    if not len(images):
        raise InputError("there is no image to make attention maps of")
    if classes is not None and (len(classes) != len(images) or not set(classes) <= set(range(model.num_classes))):
        raise InputError(f"classes must be {len(images)} numbers from 0 to {model.num_classes - 1}, one for each image")
    layers = _layers(model)
    with torch.inference_mode(False), torch.enable_grad(), _as_reference(model), _recorded(layers) as weights:
        x = normalise(as_tensor(images).to(mean.device), mean, std)  # (B, C, H, W)
        logits = model.classify(model.features(x)).float()  # (B, K)
        chosen = logits.argmax(dim=1) if classes is None else torch.tensor(classes, device=x.device)  # (B,)
        gradients = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), weights, materialize_grads=True)
    return AttentionMaps(
        weights=torch.stack(weights).detach().cpu(),
        gradients=torch.stack(gradients).cpu(),
        logits=logits.detach().cpu(),
        classes=chosen.cpu(),
        grid=model.tokens.patches.grid,
        num_cls=model.tokens.num_cls,
    )


def _layers(model: ViT) -> list[Mixer]:
    """The attention layers of the blocks, which must not be user-defined."""
    built_in = tuple(MIXERS.values())
    found = [
        [layer for layer in block.modules() if isinstance(layer, Mixer) and type(layer) in built_in]
        for block in model.blocks
    ]
    if all(found):
        return [layer for layers in found for layer in layers]
    config = model.config
    code = config.attention if isinstance(config.attention, Code) else config.block
    raise InputError(
        f"{code} mixes tokens in its own way, so there are no attention maps; {', '.join(MIXERS)} have them"
    )


@contextmanager
def _as_reference(model: ViT) -> Iterator[None]:
    """Evaluate the model by its layers in PyTorch; fused blocks would not run them. Left as it was."""
    was = model.training, model.kernels
    model.eval()
    model.use_kernels("reference")
    try:
        yield
    finally:
        model.train(was[0])
        model.use_kernels(was[1])


@contextmanager
def _recorded(layers: Sequence[Mixer]) -> Iterator[list[Tensor]]:
    """The weights of the layers, in the order they run, each (B, A, N, N); the layers read by these very tensors."""
    recorded: list[Tensor] = []

    def read(layer: Mixer, inputs: tuple[Tensor], _output: Tensor) -> Tensor:
        weights = layer.weights(inputs[0]).requires_grad_()  # even if no parameter is trained
        recorded.append(weights)
        return layer.read(inputs[0], weights)

    handles = [layer.register_forward_hook(read) for layer in layers]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()
