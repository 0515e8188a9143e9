"""Compile a run's kernels in other threads while the rest of it is set up.

The model and the batch size determine the kernels. So tensors without memory are passed through the fused parts of a
step, forward and backward, where every launch only compiles (`pocketvit.kernels.launch`). They are made as a step will
have them, because most of PyTorch's own operations on such tensors are written in Python and load its compiler. Such
tensors are called shadows here, and so are the parts of a step that run on them.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pocketvit.augment.batch import BatchMaker, Chunk
from pocketvit.kernels.block_weights import BlockNorms, BlockPlan
from pocketvit.kernels.fold import fold_norm
from pocketvit.kernels.head import HeadWeights, head_loss
from pocketvit.kernels.launch import compiling
from pocketvit.kernels.stem import StemWeights, stem
from pocketvit.model import ViT
from pocketvit.model.ends import head_parts, stem_parts
from pocketvit.model.folded import plan_of
from pocketvit.model.stems import CHANNELS
from pocketvit.objectives.objective import Stack


@contextmanager
def kernels_compiled(
    model: ViT,
    stacks: Sequence[Stack],
    batch_size: int,
    label_smoothing: float,
    micro_batch: int | None = None,
    image_dtype: torch.dtype = torch.bfloat16,
) -> Iterator[None]:
    """Compile a step's kernels inside this context; they are ready when it ends.

    Args:
        model: on its GPU; its blocks run as fused kernels.
        stacks: of blocks like the model's, that a step runs.
        batch_size: images of a step on this process.
        micro_batch: those that the blocks compute at a time; None for all.
        image_dtype: of the images of a step.
    """
    piece = min(batch_size, micro_batch or batch_size)
    device = next(model.parameters()).device

    def compile_all() -> None:
        with torch.cuda.device(device), compiling():
            for num_tokens, taken in stacks:
                kernels = model.block_kernels(device, torch.bfloat16, num_tokens).name
                if kernels != "reference":
                    shadow_blocks(plan_of(model.config, num_tokens, taken), piece, num_tokens, kernels=kernels)
            shadow_batch(model, batch_size, label_smoothing, image_dtype)
            shadow_ends(model, piece, image_dtype)

    with ThreadPoolExecutor(max_workers=1) as thread:
        done = thread.submit(compile_all)
        yield
        done.result()


def shadow_blocks(
    plan: BlockPlan, batch_size: int, num_tokens: int, dtype: torch.dtype = torch.bfloat16, *, kernels: str = "fused"
) -> None:
    """Launch a step's kernels for its blocks; one layer is enough, because all share their kernels."""
    from pocketvit.kernels.blocks import FUNCTIONS  # needs Triton

    def leaf(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return shadow(*shape, dtype=dtype).requires_grad_()

    x = leaf(batch_size, num_tokens, plan.width, dtype=dtype)
    weights = [leaf(1, *shape) for shape in plan.shapes]
    norms = [leaf(1, plan.width) for _ in BlockNorms._fields] if kernels == "persistent" else []
    out = FUNCTIONS[kernels].apply(x, shadow(1, 2, batch_size), plan, True, *weights, *norms)
    out.backward(torch.empty_like(out))
    if norms:  # these kernels merge them themselves
        return
    for w, b in (weights[:2], weights[4:6]):  # the layers behind a norm
        factor, offset = leaf(1, plan.width), leaf(1, plan.width) if plan.centred else None
        folded = fold_norm(w, b, factor, offset)
        torch.autograd.backward(folded, [torch.empty_like(tensor) for tensor in folded])


def shadow_batch(model: ViT, batch_size: int, label_smoothing: float, dtype: torch.dtype = torch.bfloat16) -> None:
    """Launch a step's kernels for its batch."""
    batches = BatchMaker(shadow(CHANNELS), shadow(CHANNELS), model.num_classes, label_smoothing)
    images = shadow(batch_size, *model.image_size, CHANNELS, dtype=torch.uint8)
    labels, erase, position = (shadow(*shape, dtype=torch.int64) for shape in ((batch_size,), (batch_size, 4), (1,)))
    batches.fused(Chunk(images, labels, erase, shadow(1, 7)), position, dtype)


def shadow_ends(model: ViT, batch_size: int, dtype: torch.dtype = torch.bfloat16) -> None:
    """Launch a step's kernels for the model's stem and head, where they run."""
    like = torch.empty(0, dtype=dtype, device=next(model.parameters()).device)
    parts = []
    if model.stem_kernels(like).name != "reference":
        weights, plan = stem_parts(model.tokens)
        images = shadow(batch_size, *model.image_shape, dtype=dtype)
        parts.append(stem(images, StemWeights(*shadows(weights)), plan))
    if model.head_kernels(like).name != "reference":
        weights, plan = head_parts(model, 1.0)
        tokens = shadow(batch_size, model.tokens.num_read or model.tokens.num_tokens, model.config.width, dtype=dtype)
        targets = shadow(batch_size, model.num_classes)
        loss, _ = head_loss(tokens.requires_grad_(), targets, HeadWeights(*shadows(weights)), plan)
        parts.append(loss)
    for out in parts:
        out.backward(torch.empty_like(out))


def shadows(tensors: Iterable[Tensor | None]) -> list[Any]:
    """The same tensors without memory."""
    made = (None if t is None else shadow(*t.shape, dtype=t.dtype).requires_grad_(t.requires_grad) for t in tensors)
    return list(made)


def shadow(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor without memory: a shape and a type."""
    return torch.empty(shape, dtype=dtype, device="meta")
