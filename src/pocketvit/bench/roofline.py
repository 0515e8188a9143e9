"""Roofline: lower bounds on a step's time, from its arithmetic and from its memory traffic.

Both are counted and divided by the rate that this machine reached in a large matrix product and in a large copy.
Operations are those of the matrix products in the reference model, forward and backward, without recomputation. Bytes
are only those that must pass through memory however much is fused: the images, the weights with their gradients and
optimizer state, and each layer's input, written in the forward pass and read again in the backward pass. Everything
inside a block is assumed to stay on the chip, so real kernels move several times as much.

Shapes: B batch, C channels, H W pixels, N tokens, D width, L layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pocketvit.bench.clock import time_repeats
from pocketvit.config import RunConfig
from pocketvit.model import ViT
from pocketvit.optim.build import build_optimizers
from pocketvit.optim.state import create_state

FP32_BYTES = 4
MATRIX_SIZE = {"cuda": 8192, "mps": 4096, "cpu": 1536}  # side of the square matrices whose product is timed
COPY_BYTES = {"cuda": 2**30, "mps": 2**28, "cpu": 2**27}
"""Size of the array whose copy is timed: several times any cache."""
REPEATS = 7


@dataclass(frozen=True)
class Rates:
    """The peak rates of this machine."""

    matrix_flop_per_s: float  # in a large matrix product, in the precision of training
    copy_bytes_per_s: float  # in a large copy, bytes read plus bytes written


@dataclass(frozen=True)
class Work:
    """The least work for one batch."""

    flop: float  # multiplications and additions in matrix products
    num_bytes: float  # bytes read from and written to the device's memory

    def limits_s(self, rates: Rates) -> tuple[float, float]:
        """The least time for the arithmetic and for the memory traffic, in seconds."""
        return self.flop / rates.matrix_flop_per_s, self.num_bytes / rates.copy_bytes_per_s


def measure_rates(device: torch.device, dtype: torch.dtype) -> Rates:
    """Time a matrix product and a copy of random numbers, because zeros can be faster than real data."""
    generator = torch.Generator(device).manual_seed(0)
    size = MATRIX_SIZE[device.type]
    a, b = (torch.randn(size, size, device=device, generator=generator).to(dtype) for _ in range(2))
    product = torch.empty_like(a)
    matrix = time_repeats(lambda: torch.mm(a, b, out=product), device, REPEATS)
    source = torch.randint(256, (COPY_BYTES[device.type],), device=device, dtype=torch.uint8, generator=generator)
    target = torch.empty_like(source)
    copy = time_repeats(lambda: target.copy_(source), device, REPEATS)
    return Rates(2 * size**3 / matrix.median_s, 2 * len(source) / copy.median_s)


def _convolution_backward_flop(
    dout: Sequence[int], _: object, weight: Sequence[int], *others: Any, **__: object
) -> int:
    """Of a convolution's backward pass, from shapes: as many for each gradient as forward.

    PyTorch's own count does not divide by the groups.
    """
    num_gradients = sum(others[-1][:2])  # of the input and of the weight, as far as they are wanted
    return num_gradients * 2 * prod(weight) * dout[0] * prod(dout[2:])


CONVOLUTIONS = {torch.ops.aten.convolution_backward: _convolution_backward_flop}


def flop_per_image(model: ViT) -> tuple[int, int]:
    """Operations in the matrix products of one image: forward, and forward with backward. The model is on the CPU."""
    images = torch.zeros(1, 3, *model.image_size)
    # The counter cannot see into fused attention, whose backward pass also recomputes the scores.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False, custom_mapping=CONVOLUTIONS) as counter:
        logits = model(images)
        forward = counter.get_total_flops()
        logits.sum().backward()
    model.zero_grad(set_to_none=True)
    return forward, counter.get_total_flops()


def forward_work(model: ViT, batch_size: int) -> Work:
    """The work of classifying a batch: pixels and weights are read once; logits are negligible."""
    pixels = batch_size * 3 * model.image_size[0] * model.image_size[1]
    return Work(batch_size * flop_per_image(model)[0], FP32_BYTES * (pixels + model.num_params))


def training_work(config: RunConfig, model: ViT, *, bf16: bool) -> Work:
    """The work of a training step of a model on the CPU; `bf16` tells whether its residual stream is in bf16."""
    optimizers = build_optimizers(config.optim, model)
    create_state(optimizers)
    moments = sum(t.numel() for o in optimizers for state in o.state.values() for t in state.values() if t.ndim)
    pixels = config.batch_size * 3 * model.image_size[0] * model.image_size[1]  # uint8, read
    updated = 2 * model.num_params + moments  # weights, gradients and moments
    stream = config.model.num_layers * config.batch_size * model.tokens.num_tokens * config.model.width
    traffic = pixels + 2 * FP32_BYTES * updated + 2 * (2 if bf16 else FP32_BYTES) * stream  # both written and read
    return Work(config.batch_size * flop_per_image(model)[1], traffic)
