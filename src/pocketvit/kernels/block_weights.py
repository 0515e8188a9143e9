"""The definition of a stack of transformer blocks for the kernels: its tensors and their meaning."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor


def chunk(width: int) -> int:
    """C, the channels that a kernel handles at a time: a power of two that divides the width, a multiple of 32."""
    return 64 if width % 64 == 0 else 32


class BlockWeights(NamedTuple):
    """The trained tensors of L blocks without norm factors: those are folded into the linear layer behind the norm."""

    w_qkv: Tensor  # (L, F, D), F = (A + 2 A_kv) · E: queries, keys, values
    b_qkv: Tensor  # (L, F)
    w_proj: Tensor  # (L, D, D)
    b_proj: Tensor  # (L, D)
    w_fc1: Tensor  # (L, H, D)
    b_fc1: Tensor  # (L, H)
    w_fc2: Tensor  # (L, D, H)
    b_fc2: Tensor  # (L, D)


class BlockNorms(NamedTuple):
    """The factors and offsets of L blocks' norms, where `BlockWeights` are given before they are merged in."""

    factor1: Tensor  # in front of queries, keys and values, (L, D)
    offset1: Tensor | None  # (L, D); None for RMSNorm
    factor2: Tensor  # in front of the MLP, (L, D)
    offset2: Tensor | None  # (L, D)


class MixerKernels(NamedTuple):
    """What mixes tokens inside the blocks: functions of q, k and v, with arguments as in `attention_ops`."""

    reference: Callable[[Tensor, Tensor, Tensor], Tensor]  # the reference implementation
    supported: Callable[[Tensor, Tensor, Tensor], str | None]
    """None if the kernels support these inputs; else the reason why not."""
    forward: Callable[..., Any]
    backward: Callable[..., Any]


@dataclass(frozen=True)
class BlockPlan:
    """What a stack of blocks computes, apart from the number of layers and tokens."""

    width: int  # D
    hidden_width: int  # H, of the MLP
    num_heads: int  # A
    num_kv_heads: int  # A_kv
    mixer: MixerKernels  # what the tokens read from each other by
    centred: bool  # LayerNorm; otherwise RMSNorm
    tanh: bool  # GELU by tanh instead of the error function
    eps: float  # of the norms
    taken: int  # tokens of each image that are wanted after the last block

    @property
    def head_dim(self) -> int:
        """E."""
        return self.width // self.num_heads

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of a layer's `BlockWeights`, in order."""
        D, H, F = self.width, self.hidden_width, (self.num_heads + 2 * self.num_kv_heads) * self.head_dim
        return (F, D), (F,), (D, D), (D,), (H, D), (H,), (D, H), (D,)
