"""Token mixers: the layer of a block in which tokens read from each other.

Each is a subclass of `Mixer` in a file of its own in this folder, which is named as the value of `model.attention` that
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
    """A layer from tokens to tokens, (B, N, D) -> (B, N, D); of the first T alone where forward is told `taken`=T.

    Args:
        rotary: turns queries and keys by their positions; none leaves them.
    """

    KERNELS: ClassVar[MixerKernels | None] = None
    """What computes it inside the fused blocks, with its plain twin; none leaves its blocks to PyTorch."""

    def __init__(self, config: ModelConfig, rotary: RotaryPositions | None = None) -> None:
        super().__init__()
        self.rotary = rotary
        self.kernels: Kernels = "auto"  # what computes it outside them

    @staticmethod
    def not_foldable(config: ModelConfig) -> str | None:
        """None where `KERNELS` compute all of it with this configuration; else one line that says why not."""

    @staticmethod
    def fold(layers: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """With `KERNELS`: the projections to queries, keys and values as one, (L, F, D) and (L, F); differentiable."""
        raise NotImplementedError


MIXERS: dict[str, type[Mixer]] = {
    name: import_module(f"{__name__}.{name}").MIXER for _, name, _ in iter_modules(__path__)
}


def make_attention(config: ModelConfig, rotary: RotaryPositions | None = None) -> nn.Module:
    """The attention layer that `model.attention` asks for."""
    return part(config.attention, MIXERS)(config, rotary)
