"""Token mixers: the layer of a block in which tokens exchange information.

Each is a subclass of `Mixer` in its own file in this folder, named like the value of `model.attention` that
chooses it and calls it `MIXER`.
"""

from collections.abc import Sequence
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, ClassVar

from torch import Tensor, nn

from pocketvit.config import ModelConfig
from pocketvit.config.training import Kernels
from pocketvit.kernels.block_weights import MixerKernels
from pocketvit.model.custom import part
from pocketvit.model.positions import RotaryPositions


class Mixer(nn.Module):
    """A layer from tokens to tokens, (B, N, D) -> (B, N, D), or to the first T with `taken`=T.

    Args:
        rotary: rotates queries and keys by their positions; None does not.
    """

    KERNELS: ClassVar[MixerKernels | None] = None
    """Its kernels inside the fused blocks, with the reference; None runs its blocks in PyTorch."""

    def __init__(self, config: ModelConfig, rotary: RotaryPositions | None = None) -> None:
        super().__init__()
        self.rotary = rotary
        self.kernels: Kernels = "auto"  # its implementation outside of them

    @staticmethod
    def not_foldable(config: ModelConfig) -> str | None:
        """None if `KERNELS` support this configuration; else the reason why not."""

    @staticmethod
    def fold(layers: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """With `KERNELS`: the projections to queries, keys and values as one, (L, F, D) and (L, F); differentiable."""
        raise NotImplementedError

    def weights(self, x: Tensor) -> Tensor:
        """What each of the tokens x (B, N, D) reads of each other one's value, (B, A, N, N), a row for each reader."""
        raise NotImplementedError

    def read(self, x: Tensor, weights: Tensor) -> Tensor:
        """What `forward` gives for tokens (B, N, D) if they read with these weights, (B, A, N, N)."""
        raise NotImplementedError


MIXERS: dict[str, type[Mixer]] = {
    name: import_module(f"{__name__}.{name}").MIXER for _, name, _ in iter_modules(__path__)
}


def make_attention(config: ModelConfig, rotary: RotaryPositions | None = None) -> nn.Module:
    """The attention layer of `model.attention`."""
    return part(config.attention, MIXERS)(config, rotary)
