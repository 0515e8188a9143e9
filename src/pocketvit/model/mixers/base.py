"""What every token mixer has, and what those have that the fused blocks can compute."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from pocketvit.config import ModelConfig
from pocketvit.config.training import Kernels
from pocketvit.kernels.block_weights import MixerKernels
from pocketvit.model.positions import RotaryPositions


class Mixer(nn.Module):
    """A layer from tokens to tokens.

    Args:
        config: the model's configuration.
        rotary: turns queries and keys by their positions; none leaves them.
    """

    KERNELS: ClassVar[MixerKernels | None] = None
    """What computes it inside the fused blocks, with its plain twin; none leaves the blocks to PyTorch."""

    def __init__(self, config: ModelConfig, rotary: RotaryPositions | None) -> None:
        super().__init__()
        self.rotary = rotary
        self.kernels: Kernels = "auto"
        """What computes it outside them: for a layer with a kernel of its own."""

    def forward(self, x: Tensor, taken: int | None = None) -> Tensor:
        """Mix tokens (B, N, D) -> (B, N, D), or only the first T of them where that many are taken."""
        raise NotImplementedError

    @staticmethod
    def not_foldable(config: ModelConfig) -> str | None:
        """None where `fold` gives all that `KERNELS` need with this configuration; else one line that says why not."""
        return None

    @staticmethod
    def fold(layers: Sequence["Mixer"]) -> tuple[Tensor, Tensor]:
        """The layers' projections to queries, keys and values as one, W (L, F, D) and b (L, F); differentiable."""
        raise NotImplementedError
