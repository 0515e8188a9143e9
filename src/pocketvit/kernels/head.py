"""The end of a training step's forward: norm, pooling, linear classifier, cross-entropy, and all their gradients.

For 256 images it is little work: 256 tokens of 192 channels, a product with 10 × 192 weights, a softmax. PyTorch makes
two dozen launches of it, each of one to four microseconds in which the GPU does next to nothing: casts for autocast,
the norm, two or three products each with its reduction, the softmax's parts, copies of slices. Here it is

    head_kernel            an image per program: norm, pool, logits, loss, and the loss's gradient at the logits
    (a sum)                of the images' losses, and of those that are right
    head_backward_kernel   the gradients of all weights, by channels, and beside them the tokens', by images

The loss's gradient at the logits, softmax(z) · Σ target − target, needs nothing but the logits; so forward makes it, and
two launches are enough. One launch would need all images' numbers in one place, so programs that wait for each other, or
atomics, whose sums differ from run to run in the last bits. A program that owns a part of a gradient and walks over all
images needs neither. Everything between x and dx is float32, where autocast rounds four times to bfloat16.

**Weights.** With n the normalized token, the classifier reads r = γ ∘ p + β, p being n itself or its mean over an image's
patch tokens, because γ and β can be applied after the mean as well. With G = Σ dz pᵀ over the images, (K, T·D), and
g = Σ dz, everything follows in the space of the weights:

    dW = G diag γ + g βᵀ    db = g    dγ = Σ over W's rows of W ∘ G    dβ = Wᵀ g

so forward leaves p and dz, (B, T, D) and (B, K), and no sum over the images is taken but G and g. A program owns 16 channels:
as they are the same of each of T CLS tokens, it owns dγ and dβ too.

**Tokens.** dp = γ ∘ Wᵀ dz; by the norm's backward each token of an image gets (dp − mean(dp) − n · mean(n ∘ dp)) / std, over
the number of tokens in a mean; tokens that are not pooled get zeros. The norm is computed again, from x, which is less to
read than what would be kept.

Products are sums of float32 on the ordinary units (`ieee`), not the matrix units' TF32: there are 1.5 million
multiplications at batch 256, a microsecond, and weights stay exact. Every image's program reads all weights, 8 kB, from
the second cache; with hundreds of classes that is what counts, 30 µs at batch 1,024 with 100 classes, where it is less
than a hundredth of a step. Above `MAX_CLASSES` a tile of weights no longer fits the registers.

Shapes: B images, M tokens that the blocks return of each, D width, T vectors that the classifier reads, K classes.
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
    from pocketvit.kernels.head_triton import head_backward_kernel, head_kernel

MAX_CLASSES = 512
MAX_TOKENS = 128  # of an image, for their mean
COLUMNS = 16  # channels of the weights' gradients that a program owns
TILE = 4096  # numbers of dlogits that it takes at a time, of 16 to 64 images


class HeadWeights(NamedTuple):
    """The trained tensors, float32."""

    factor: Tensor  # of the norm, (D,)
    offset: Tensor  # (D,)
    w: Tensor  # of the classifier, (K, T·D)
    b: Tensor  # (K,)


class HeadPlan(NamedTuple):
    """What is pooled, and how the loss is scaled."""

    num_cls: int  # T tokens from the first on, one behind the other; 0: the mean of all but the first `num_special`
    num_special: int
    scale: float  # factor of the sum of the images' losses
    eps: float  # of the norm


def head_loss(x: Tensor, targets: Tensor, weights: HeadWeights, plan: HeadPlan) -> tuple[Tensor, Tensor]:
    """The cross-entropy of images against class probabilities, and how many are right, by kernels.

    Args:
        x: tokens as the last block returns them, (B, M, D).
        targets: class probabilities, float32, (B, K).
    Returns:
        `plan.scale` times the sum over the images of each, float32, 0-dim; the latter is detached.
    """
    return HeadLoss.apply(x, targets, plan, *weights)


def head_loss_reference(x: Tensor, targets: Tensor, weights: HeadWeights, plan: HeadPlan) -> tuple[Tensor, Tensor]:
    """The reference implementation of `head_loss`."""
    x = F.layer_norm(x, x.shape[2:], weights.factor, weights.offset, plan.eps)
    read = x[:, : plan.num_cls].flatten(1) if plan.num_cls else x[:, plan.num_special :].mean(dim=1)  # (B, T·D)
    logits = F.linear(read, weights.w, weights.b)  # (B, K)
    loss = -plan.scale * (targets * logits.log_softmax(dim=1)).sum()
    return loss, plan.scale * (logits.argmax(dim=1) == targets.argmax(dim=1)).sum().to(loss.dtype)


def supported(device: torch.device, num_classes: int, num_tokens: int, width: int) -> str | None:
    """None if the kernels support such a head on M tokens of each image; else the reason why not."""
    if reason := needs_gpu(device):
        return reason
    if num_classes > MAX_CLASSES:
        return f"the head's kernels are made for at most {MAX_CLASSES} classes, not {num_classes}"
    if num_tokens > MAX_TOKENS:
        return f"the head's kernels are made for at most {MAX_TOKENS} tokens, not {num_tokens}"
    return f"a width of {width} is not a multiple of 32" if width % 32 else None


class HeadLoss(torch.autograd.Function):
    """`head_loss` by the kernels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, targets: Tensor, plan: HeadPlan, *weights: Tensor) -> tuple[Tensor, Tensor]:
        x, targets, w = x.contiguous(), targets.contiguous(), HeadWeights(*(t.contiguous() for t in weights))
        (B, _, D), K, sizes = x.shape, len(w.b), _sizes(x, w, plan)
        pooled, dlogits, terms = w.b.new_empty(B, sizes["T"], D), w.b.new_empty(B, K), w.b.new_empty(2, B)
        launch(
            head_kernel, (B,), x, targets, *w, pooled, dlogits, terms, plan.scale,
            EPS=plan.eps, **sizes, num_warps=_warps(sizes),
        )  # fmt: skip
        ctx.plan, ctx.weights = plan, HeadWeights(*weights)  # the parameters themselves: their gradients have places
        ctx.save_for_backward(x, pooled, dlogits, *w)
        loss, right = terms.sum(dim=1).unbind()
        ctx.mark_non_differentiable(right)
        return loss, right

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dloss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, pooled, dlogits, *rest = ctx.saved_tensors
        w = HeadWeights(*rest)
        sizes, dx, dw = _sizes(x, w, ctx.plan), torch.empty_like(x), HeadWeights(*map(room_for, ctx.weights))
        launch(
            head_backward_kernel, (x.shape[2] // COLUMNS + len(x),),
            x, w.factor, w.offset, w.w, pooled, dlogits, dloss, dx, *dw, len(x),
            EPS=ctx.plan.eps, COLUMNS=COLUMNS, IMAGES=max(16, min(64, TILE // sizes["K_PADDED"])), **sizes,
            num_warps=_warps(sizes),
        )  # fmt: skip
        return dx, None, None, *dw


def _sizes(x: Tensor, w: HeadWeights, plan: HeadPlan) -> dict[str, int]:
    """The kernels' constants."""
    (_, M, D), K = x.shape, len(w.b)
    sizes = {"M": M, "D": D, "C": chunk(D), "K": K, "K_PADDED": max(16, triton.next_power_of_2(K))}
    if plan.num_cls:
        return sizes | {"T": plan.num_cls, "FIRST": 0, "COUNT": 1, "ROWS": 1}
    tokens = M - plan.num_special
    return sizes | {"T": 1, "FIRST": plan.num_special, "COUNT": tokens, "ROWS": triton.next_power_of_2(M)}


def _warps(sizes: dict[str, int]) -> int:
    """More threads for large tiles of tokens or weights, which lie in their registers."""
    return 8 if sizes["ROWS"] > 32 or sizes["K_PADDED"] > 128 else 4
