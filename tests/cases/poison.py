"""Memory that shows what nobody wrote."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def poisoned_memory(device: str = "cpu") -> Iterator[None]:
    """Fresh memory holds NaN, and 255 in bytes, so that a number which nobody wrote shows."""
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.utils.deterministic.fill_uninitialized_memory
        assert torch.empty(0, device=device).new_empty(3).isnan().all()
        assert torch.empty(3, dtype=torch.uint8, device=device).eq(255).all()
        yield
    finally:
        torch.use_deterministic_algorithms(False)
