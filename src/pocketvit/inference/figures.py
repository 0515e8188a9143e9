"""What a run's report shows of its model: patch filters, positions, low-rank projections, attention on test images.

The report works without PyTorch, so what it draws is computed here, at the end of a run.

Shapes: F filters of p × p pixels, P patches, D width, L layers, R rank, n images, H W pixels.
"""

import numpy as np
import torch
from torch import Tensor

from pocketvit.data.dataset import MappedRows
from pocketvit.data.pixels import one_line
from pocketvit.errors import InputError
from pocketvit.inference.explain import explained
from pocketvit.inference.trained_model import TrainedModel
from pocketvit.model import ViT
from pocketvit.model.block import Block

MOST_PATTERNS = 32
MAPS = ("gradient-weighted", "rollout")
MOST_WEIGHTS = 2**24
"""Attention weights of all layers computed at once; with their gradients, some hundred MB."""


@torch.no_grad()
def model_figures(model: ViT, whitening: Tensor | None) -> dict[str, np.ndarray]:
    """The figures that need no images.

    Args:
        whitening: initial filters of the patch embedding, (F, 3, p, p); None if they were random.
    Returns:
        `patch_filters` (up to 32, p, p, 3): the directions in the space of patches that the first layer passes on most,
        strongest first; `whitening_filters` (F, p, p, 3); `position_similarity` (P, P) of learned positions; and
        `singular_values_<q, k or v>` (L, R) of low-rank projections.
    """
    figures = {"patch_filters": _patterns(model.tokens.patches.filters.cpu())}
    if whitening is not None:
        figures["whitening_filters"] = whitening.permute(0, 2, 3, 1).numpy()  # (F, p, p, 3)
    positions = model.tokens.positions
    if model.config.positions == "learned" and positions is not None:
        table = positions[0, model.tokens.num_special :].cpu()  # (P, D)
        unit = torch.nn.functional.normalize(table, dim=1)
        figures["position_similarity"] = (unit @ unit.T).numpy()  # (P, P)
    return figures | _singular_values(model)


def _patterns(filters: Tensor) -> np.ndarray:
    """The right singular vectors of filters (F, 3, p, p), as images whose largest weight is positive."""
    vectors = torch.linalg.svd(filters.flatten(1).double(), full_matrices=False).Vh[:MOST_PATTERNS]
    largest = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
    return (vectors * largest.sign()).float().unflatten(1, filters.shape[1:]).permute(0, 2, 3, 1).numpy()


def _singular_values(model: ViT) -> dict[str, np.ndarray]:
    layers = [block.attn.low_rank() for block in model.blocks if Block.is_standard(block)]
    found = {}
    for name in layers[0] if layers else ():
        first, second = (torch.stack([layer[name][i] for layer in layers]).cpu() for i in range(2))
        # The product's singular values, by a triangle of R × R in place of (out, R): far cheaper.
        found[f"singular_values_{name}"] = torch.linalg.svdvals(torch.linalg.qr(second).R @ first).numpy()  # (L, R)
    return found


def attention_figures(
    trained: TrainedModel, images: np.ndarray | MappedRows, rows: np.ndarray
) -> dict[str, np.ndarray]:
    """Attention on some images. That there are no maps must not end a run at its end, so the reason is a figure as well.

    Args:
        images: uint8, (N, H, W, 3).
        rows: which of them, int64, (n,), at least one.
    Returns:
        `attention_rows` (n,), `attention_images` uint8 (n, H, W, 3) and `attention_maps` (2, n, rows, columns), those of
        `MAPS`; or `attention_refused`, why there are none.
    """
    config, num_tokens = trained.model.config, trained.model.tokens.num_tokens
    weights = config.num_layers * config.num_heads * num_tokens**2
    found = []
    try:
        if weights > MOST_WEIGHTS:
            raise InputError(f"{weights:,} attention weights an image are too many for the end of a run")
        at_a_time = MOST_WEIGHTS // weights
        for some in np.split(rows, range(at_a_time, len(rows), at_a_time)):
            found += explained(trained, images[some])
        maps = np.array([[one["maps"][name] for one in found] for name in MAPS], np.float32)
        if not np.isfinite(maps).all():
            raise InputError("the model's attention weights are not finite")
    except Exception as error:
        return {"attention_refused": np.array(one_line(error))}
    return {"attention_rows": rows, "attention_images": images[rows], "attention_maps": maps}
