"""Dropout whose masks have addresses, as all random numbers of a run do.

A mask has a bit for every number of every token, too many to draw on the CPU and copy. So the CPU draws only a key for
each image and place, and the device makes the bits: bit i is a hash of key + i, in integers, which are the same on every
device and however a batch is split.

Sources: Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html; the hash is SplitMix64's, Steele et al. 2014,
https://doi.org/10.1145/2660193.2660195. It steps by 1 here: torch.compile multiplies an index by a number in integers that do not
wrap around.
"""

import torch
from torch import Tensor

BITS = 24  # of a hash that are compared with the rate


def signed(word: int) -> int:
    """The signed integer with the bits of an unsigned one of 64 bits."""
    return word - (word >> 63 << 64)


FIRST, SECOND = map(signed, (0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def drop(x: Tensor, rate: float, keys: Tensor | None) -> Tensor:
    """Set each number to zero with probability `rate`, and scale the others so that the mean stays.

    Args:
        x: of B images, (B, …).
        keys: int64, (B,); None drops nothing.
    """
    if keys is None:
        return x
    return torch.where(kept(x[0].numel(), rate, keys).view(x.shape), x / (1 - rate), 0)


def kept(count: int, rate: float, keys: Tensor) -> Tensor:
    """Which of the first `count` numbers of each image stay, bool (B, count)."""
    z = keys[:, None] + torch.arange(count, device=keys.device)
    z = (z ^ _shifted(z, 30)) * FIRST  # integers wrap around
    z = (z ^ _shifted(z, 27)) * SECOND  # the hash's last shift would leave its upper bits as they are
    return _shifted(z, 64 - BITS) >= round(rate * 2**BITS)


def _shifted(z: Tensor, by: int) -> Tensor:
    """The bits shifted to the right, zeros moving in."""
    return (z >> by) & (2 ** (64 - by) - 1)
