"""Work for a GPU, to be done in processes of their own."""

import time

import torch
from block_cases import Case, random_inputs, results

from pocketvit.kernels.persistent.blocks import PersistentBlocks


def products(seconds: float) -> None:
    """Products of large matrices."""
    a = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(20):
            a @ a
        torch.cuda.synchronize()


def persistent_blocks(seconds: float) -> None:
    """The paper's blocks forward and backward; fails if not all repeats give the same bits."""
    case = Case(256, 65, 192, 12, 2, 1, num_layers=9)
    inputs = random_inputs(case, "cuda", torch.bfloat16, 0)

    def blocks(x, keep, weights, plan):
        return PersistentBlocks.apply(x, keep, plan, True, *weights)

    first = results(blocks, inputs, case.plan)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(50):
            again = results(blocks, inputs, case.plan)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
