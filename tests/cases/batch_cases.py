"""Chunks for the tests of the batch kernel.

Shapes: S steps, B batch, H W pixels, C channels, K classes.
"""

from typing import NamedTuple

import torch
from poison import poisoned_memory

from pocketvit.augment.batch import BatchMaker, Chunk


class Form(NamedTuple):
    """The sizes of a chunk."""

    S: int
    B: int
    H: int
    W: int
    C: int
    K: int
    smoothing: float


FORMS = [
    Form(3, 5, 32, 32, 3, 10, 0.1),
    Form(2, 4, 8, 13, 1, 7, 0.0),
    Form(1, 1, 5, 4, 4, 2, 0.3),
    Form(2, 3, 40, 24, 3, 100, 0.1),
    Form(1, 1, 32, 32, 3, 1000, 0.1),
    Form(4, 7, 1, 1, 3, 3, 0.0),
    Form(2, 3, 33, 31, 3, 17, 0.05),
    Form(5, 1, 7, 50, 2, 2, 1.0),
    Form(1, 2, 64, 48, 3, 200, 0.2),
]
MIX_ROWS = [
    (1, 1, 0, 0, 0, 0, 1),  # a plain batch
    (0.3, 0.3, 1, 2, 1, 2, 0.3),  # MixUp
    (0, 1, 1, 4, 2, 9, 0.8),  # CutMix
]
"""As rows of `draw_mix`'s table; every step of a chunk gets another one."""


def assert_equals_the_twin(form: Form, dtype: torch.dtype, atol: float, device: str = "cpu", seed: int = 0) -> None:
    """The kernel's batches of a chunk, on poisoned memory, are the twin's, position by position."""
    generator = torch.Generator().manual_seed(seed)
    count = form.S * form.B
    mean, std = (torch.rand(form.C, generator=generator) * 0.3 + 0.3 for _ in range(2))
    images = torch.randint(0, 256, (count, form.H, form.W, form.C), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, form.K, (count,), generator=generator)
    erase = torch.randint(0, 5, (count, 4), generator=generator)
    erase[::2, 2] = 0  # every other image is left whole
    mix = torch.tensor([MIX_ROWS[(step + form.B) % 3] for step in range(form.S)])
    chunk = Chunk(*(tensor.to(device) for tensor in (images, labels, erase, mix)))
    batches = BatchMaker(mean.to(device), std.to(device), form.K, form.smoothing)
    for step in range(form.S):
        position = torch.tensor([step], device=device)
        with poisoned_memory(device):
            x, targets, *_ = batches.fused(chunk, position, dtype)
        assert x.dtype == dtype
        expected_x, expected_targets, *_ = batches.finish(chunk.take(position))
        torch.testing.assert_close(x.float(), expected_x, rtol=0 if dtype == torch.float32 else 2**-8, atol=atol)
        torch.testing.assert_close(targets, expected_targets, rtol=0, atol=1e-6)
