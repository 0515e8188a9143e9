"""A masked autoencoder, without labels, to start from (`init_from`), while the classifier learns beside it.

The model sees a quarter of an image's patches; a small decoder, which also sees where the others are missing, is to predict
their pixels. The classifier is trained as well, on tokens that it cannot change: of the visible patches in training, of all in
a test.

Shapes: B batch, C channels, P patches of p × p pixels, k of them visible, T special tokens, N = T + P tokens, D width.

Source: He et al. 2022, https://arxiv.org/abs/2111.06377
Differs: the decoder has one block, as wide as the model's, so that the same kernels run it; its positions are learned.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from pocketvit.augment.batch import Batch
from pocketvit.errors import InputError
from pocketvit.model import ViT
from pocketvit.objectives.classification import ACCURACY, count_right, cross_entropy
from pocketvit.objectives.objective import Objective, Stack

HIDDEN_FRAC = 0.75
DECODER_DEPTH = 1
VARIANCE_EPS = 1e-6


class Decoder(nn.Module):
    """From visible tokens to the pixels of all patches."""

    def __init__(self, model: ViT) -> None:
        super().__init__()
        width, num_special = model.config.width, model.tokens.num_special
        self.embedding = nn.Linear(width, width)
        self.hidden = nn.Parameter(0.02 * torch.randn(1, 1, width))
        config = replace(
            model.config, depth=DECODER_DEPTH, block_repeats=1, pool="mean", num_cls_tokens=1, num_registers=num_special,
            head="linear", positions="learned", init="normal", patch_init="random", drop_path=0.0, dropout=0.0,
        )  # fmt: skip
        self.vit = ViT(config, image_size=model.image_size, num_classes=model.tokens.patches.proj.weight[0].numel())
        for unused in (self.vit.tokens.patches, self.vit.tokens.registers if num_special else None):
            if unused is not None:
                unused.requires_grad_(False)

    def forward(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Predict pixels.

        Args:
            tokens: of the encoder, (B, T + k, D).
            visible: which patches they are, (B, k).
        Returns:
            (B, P, p·p·C).
        """
        special, positions = self.vit.tokens.num_special, self.vit.tokens.positions
        assert positions is not None
        x = self.embedding(tokens)  # (B, T + k, D)
        patches = self.hidden.to(x.dtype).expand(len(x), self.vit.tokens.patches.num_patches, -1)  # (B, P, D)
        patches = patches.scatter(1, visible[:, :, None].expand(-1, -1, x.shape[2]), x[:, special:])
        x = torch.cat([x[:, :special], patches], dim=1) + positions.to(x.dtype)  # (B, N, D)
        return self.vit.head(self.vit.encode(x)[:, special:])


class MaskedAutoencoder(Objective):
    """The squared error of hidden patches' normalized pixels, and the classifier's own loss, which is separate.

    Args:
        batch_size: images of a step over all processes.
        model: trained with it; its patches do not overlap.
    Raises:
        InputError: an image is a single patch.
    """

    logged = (ACCURACY, "mae")

    def __init__(self, batch_size: int, model: ViT) -> None:
        self.batch_size, self.decoder = batch_size, Decoder(model)
        self.num_draws = model.tokens.patches.num_patches
        if self.num_draws < 2:
            raise InputError("objective.name=mae hides patches, and an image is a single one; use a smaller patch_size")
        self.num_visible = max(1, int(self.num_draws * (1 - HIDDEN_FRAC)))

    @property
    def layers(self) -> nn.Module:
        """The decoder."""
        return self.decoder

    def prepare(self, model: ViT, mean: Tensor, std: Tensor) -> None:
        """Use the model's kernels; see `Objective`."""
        self.decoder.vit.use_kernels(model.kernels)

    def stacks(self, model: ViT) -> tuple[Stack, Stack]:
        """The encoder's, of visible patches, and the decoder's."""
        visible, num_tokens = model.tokens.num_special + self.num_visible, model.tokens.num_tokens
        return Stack(visible, visible), Stack(num_tokens, num_tokens)

    def __call__(self, model: ViT, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Objective`."""
        assert batch.draws is not None
        order = batch.draws.argsort(dim=1, stable=True)  # (B, P)
        visible, hidden = order.split((self.num_visible, self.num_draws - self.num_visible), dim=1)
        tokens, special = model.tokens(batch.images), model.tokens.num_special  # (B, N, D)
        patches = tokens[:, special:].gather(1, visible[:, :, None].expand(-1, -1, tokens.shape[2]))  # (B, k, D)
        tokens = model.encode(
            torch.cat([tokens[:, :special], patches], dim=1), batch.drop_path, batch.dropout
        )  # (B, T + k, D)
        loss = mae_loss(self.decoder(tokens, visible), patchify(batch.images, model.config.patch_size), hidden)
        logits = model.classify(tokens.detach())  # (B, K)
        values = {ACCURACY: count_right(logits, batch.targets), "mae": loss.detach()}
        total = (loss + cross_entropy(logits, batch.targets)) / self.batch_size
        return total, {name: value / self.batch_size for name, value in values.items()}


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """The pixels of images (B, C, H, W) by patch, row by row, (B, P, p·p·C)."""
    patches = images.unfold(2, patch_size, patch_size).unfold(3, patch_size, patch_size)  # (B, C, rows, columns, p, p)
    return patches.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)


def mae_loss(found: Tensor, pixels: Tensor, hidden: Tensor) -> Tensor:
    """The mean squared error of hidden patches, whose pixels are normalized patch by patch, summed over images, 0-dim.

    Args:
        found: predicted pixels, (B, P, p·p·C).
        pixels: of `patchify`.
        hidden: which patches count, (B, P − k).
    """
    dtype = torch.promote_types(found.dtype, torch.float32)
    found, pixels = (
        values.gather(1, hidden[:, :, None].expand(-1, -1, values.shape[2])).to(dtype) for values in (found, pixels)
    )
    variance, mean = torch.var_mean(pixels, dim=2, keepdim=True)
    return (found - (pixels - mean) / (variance + VARIANCE_EPS).sqrt()).square().mean(dim=(1, 2)).sum()
