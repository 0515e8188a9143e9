"""From images to tokens: patches, their projection, CLS tokens, registers and positions, and the gradients of all.

PyTorch makes about ten launches of it each way: it copies the patches, pads them, casts the weights, multiplies, adds what
is common to all images; and backward sums a gradient of 6 MB over the images, multiplies it by the patches over 16,640
tokens, which needs a reduction of its own, and gives each of the parts its share. Here it is

    stem_kernel             64 tokens per program: their pixels, where they lie in the image; the product; all offsets
    stem_backward_kernel    a token of all images per program, or of half of them: the sums that all gradients consist of
    stem_sums_kernel        from these to each parameter's gradient

**Forward.** A patch's numbers are read at their places in the image, so no patch is ever copied; CLS tokens and registers
are rows without pixels. Sums are float32 and rounded once, where autocast rounds three times.

**Backward.** All images' tokens at one place n share a position, or a CLS token, and see the same places of their images.
So a program takes one place: the sum of its gradients is that position's gradient, and their product with the patches
there is one of P parts of the filters' gradient. That reads each gradient once, shares nothing between programs, and there
are about as many programs as multiprocessors; where there are half as many, each takes half of the images. What is left
is to add up the parts, in a fixed order: no atomics, the same bits every time. The parts are P times the filters, 5 MB
for the paper's, which stay in the second cache; hence patches have `MAX_NUMBERS` numbers at most.

There is no gradient of the images: training needs none.

Shapes: B images, C channels, H W pixels, P patches, T special tokens (CLS, then registers), N = T + P, D width, p patch side.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from pocketvit.kernels.block_weights import chunk
from pocketvit.kernels.gradient_memory import room_for
from pocketvit.kernels.launch import launch, needs_gpu, triton

if TYPE_CHECKING or triton is not None:
    from pocketvit.kernels.stem_triton import stem_backward_kernel, stem_kernel, stem_sums_kernel

MAX_NUMBERS = 256  # of a patch
PROGRAMS = 132  # that stem_backward_kernel should have: multiprocessors of an H100 or H200
ROWS, IMAGES, BLOCK = 64, 64, 64  # tokens, images and numbers that a program takes at a time


class StemWeights(NamedTuple):
    """The tensors, float32; those after the bias are None in a model without them."""

    w: Tensor  # filters, (D, C, p, p)
    bias: Tensor  # (D,)
    cls: Tensor | None  # (1, ·, D)
    registers: Tensor | None  # (1, ·, D)
    positions: Tensor | None  # (1, N, D), trained or not


class StemPlan(NamedTuple):
    """Where the patches lie."""

    stride: int
    grid: tuple[int, int]  # rows and columns of patches


def stem(images: Tensor, weights: StemWeights, plan: StemPlan) -> Tensor:
    """The tokens of images (B, C, H, W), (B, N, D) in the images' dtype, by kernels."""
    return Stem.apply(images, plan, *weights)


def stem_reference(images: Tensor, weights: StemWeights, plan: StemPlan) -> Tensor:
    """The reference implementation of `stem`."""
    patches = F.conv2d(images, weights.w, weights.bias, stride=plan.stride).flatten(2).transpose(1, 2)  # (B, P, D)
    special = [t.expand(len(images), -1, -1) for t in (weights.cls, weights.registers) if t is not None]
    tokens = torch.cat([*special, patches], dim=1)
    return tokens if weights.positions is None else tokens + weights.positions


def supported(device: torch.device, filters: torch.Size) -> str | None:
    """None if the kernels support such filters (D, C, p, p); else the reason why not."""
    if reason := needs_gpu(device):
        return reason
    if filters[1:].numel() > MAX_NUMBERS:
        most = f"at most {MAX_NUMBERS} numbers, not {filters[1:].numel()}"
        return f"the stem's kernels are made for patches of {most}"
    return f"a width of {filters[0]} is not a multiple of 32" if filters[0] % 32 else None


class Stem(torch.autograd.Function):
    """`stem` by the kernels."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, plan: StemPlan, *weights: Any) -> Tensor:
        images, w = images.contiguous(), StemWeights(*weights)
        common, sizes = _sizes(images, w, plan)
        given = [w.w if t is None else t.contiguous() for t in w]  # what is not there is not read
        out = images.new_empty(len(images), common["N"], common["D"])
        launch(
            stem_kernel, (triton.cdiv(len(images) * common["N"], ROWS),), images, *given, out, len(images),
            **common, **sizes, **_parts(w, w.positions is not None), C=chunk(common["D"]), ROWS=ROWS, num_warps=4,
        )  # fmt: skip
        ctx.plan, ctx.weights = plan, w
        ctx.save_for_backward(images)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        (images,), w = ctx.saved_tensors, ctx.weights
        dout, (common, sizes) = dout.contiguous(), _sizes(images, w, ctx.plan)
        N, D, numbers, patches = common["N"], common["D"], common["F"], ctx.plan.grid[0] * ctx.plan.grid[1]
        pieces = triton.cdiv(numbers, sizes["FC"])
        splits = max(1, min(round(PROGRAMS / (N * pieces)), triton.cdiv(len(images), IMAGES)))
        dw_parts, dtoken_parts = w.w.new_empty(splits, patches, D, numbers), w.w.new_empty(splits, N, D)
        launch(
            stem_backward_kernel, (N, pieces, splits), images, dout, dw_parts, dtoken_parts, len(images),
            **common, **sizes, SPECIAL=N - patches, C=chunk(D), SPLITS=splits, IMAGES=IMAGES, num_warps=8,
        )  # fmt: skip
        trained = w if ctx.needs_input_grad[-1] else w._replace(positions=None)  # the last input: fixed in some models
        rooms: list[Any] = [None if t is None else room_for(t) for t in trained]
        dw = StemWeights(*rooms)
        programs = sum(triton.cdiv(size, BLOCK) for size in (D * numbers, D, N * D))
        launch(
            stem_sums_kernel, (programs,), dw_parts, dtoken_parts, *(dtoken_parts if t is None else t for t in dw),
            **common, **_parts(w, dw.positions is not None), SPLITS=splits, BLOCK=BLOCK, num_warps=4,
        )  # fmt: skip
        return None, None, *dw


def _sizes(images: Tensor, w: StemWeights, plan: StemPlan) -> tuple[dict[str, int], dict[str, int]]:
    """The kernels' constants: those of all, and those of the ones that read images."""
    (_, channels, height, width), numbers, (rows, columns) = images.shape, w.w[0].numel(), plan.grid
    N = rows * columns + sum(t.shape[1] for t in (w.cls, w.registers) if t is not None)
    sizes = {"CHANNELS": channels, "HEIGHT": height, "WIDTH": width, "PATCH": w.w.shape[3], "STRIDE": plan.stride}
    sizes |= {"COLUMNS": columns, "FC": min(64, max(16, triton.next_power_of_2(numbers)))}
    return {"F": numbers, "N": N, "D": len(w.w)}, sizes


def _parts(w: StemWeights, positions: bool) -> dict[str, int]:
    """The kernels' constants that say which tensors there are."""
    cls, registers = (0 if t is None else t.shape[1] for t in (w.cls, w.registers))
    return {"NUM_CLS": cls, "SPECIAL": cls + registers, "POSITIONS": positions}
