"""The vision transformer, from normalized pixels to logits.

    tokens  ->  depth × block  ->  norm  ->  pool  ->  head

With `model.block_repeats`, each block is applied several times before the next one.

Shapes: B batch, C channels, H W pixels, P patches, T CLS tokens, N tokens, D width, K classes, L layers: blocks, each
counted as often as it is applied.

Sources: Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929; the sizes are those of Wu 2025, "Powerful Design
of Small Vision Transformer on CIFAR10"; repeated blocks: Shen et al. 2022, "Sliced Recursive Transformer",
https://arxiv.org/abs/2111.05297
Differs: nothing is between the applications of a block, where theirs have a projection and learned factors, and all of them
attend to all tokens.
"""

from collections.abc import Callable
from functools import partial
from math import log
from typing import cast

import torch
from torch import Tensor, nn

from pocketvit.config import ModelConfig
from pocketvit.config.training import Kernels
from pocketvit.errors import InputError
from pocketvit.kernels.blocks import run_blocks
from pocketvit.kernels.head import head_loss
from pocketvit.kernels.launch import Choice, choose
from pocketvit.kernels.stem import stem
from pocketvit.model.block import Block, LayerScale
from pocketvit.model.custom import check_parts, fork_of, part
from pocketvit.model.dropout import drop
from pocketvit.model.ends import head_parts, not_head, not_stem, stem_parts
from pocketvit.model.folded import fold, fold_but_norms, not_fused, not_persistent, plan_of, repeated
from pocketvit.model.head import HEADS, POOLS, OwnTokenHead
from pocketvit.model.mimetic import start_mimetic
from pocketvit.model.mixers import Mixer
from pocketvit.model.norm import make_norm
from pocketvit.model.positions import RotaryPositions, arranged
from pocketvit.model.stems import CHANNELS, ReLUConv2d
from pocketvit.model.tokens import Tokens


class ViT(nn.Module):
    """A small vision transformer.

    Args:
        config: the fields under `model`.
        image_size: (H, W), pixels.
        num_classes: K.
        generator: of the initial weights, on the CPU; None uses PyTorch's global one.
        distilled: with a token and a head of its own for a teacher's labels (`pocketvit.objectives.distillation`).
    Raises:
        InputError: the patches do not tile the image, or user-defined code does not fit.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        image_size: tuple[int, int] = (32, 32),
        num_classes: int = 10,
        generator: torch.Generator | None = None,
        distilled: bool = False,
    ) -> None:
        super().__init__()
        self.config = config
        self.image_size, self.num_classes = image_size, num_classes
        self.image_shape = (CHANNELS, *image_size)
        self.tokens = Tokens(config, image_size, num_classes, distilled=distilled)
        places = self.tokens.patches.grid, self.tokens.num_special
        rotary = RotaryPositions(*places, config.head_dim) if config.positions == "rope" else None
        block = part(config.block, {"standard": Block})

        def make_block() -> nn.Module:
            return arranged(block(config, rotary), *places)

        with fork_of(generator):
            self.blocks = nn.ModuleList(make_block() for _ in range(config.depth))
        check_parts(config, self.blocks[0], make_block, self.tokens.num_tokens)
        self.norm = make_norm(config.norm, config.width)
        self.pool = POOLS[config.pool](config, self.tokens)
        if config.pool == "cls_per_class":
            self.head = OwnTokenHead(config.width, num_classes)
        else:
            self.head = HEADS[config.head](config.width * max(1, self.tokens.num_cls), config.width, num_classes)
        self.distilled_head = HEADS[config.head](config.width, config.width, num_classes) if distilled else None
        self.kernels: Kernels = "auto"
        self.init_weights(generator)

    @property
    def layers(self) -> list[nn.Module]:
        """The blocks in the order in which they are applied, each one `model.block_repeats` times."""
        return [block for block in self.blocks for _ in range(self.config.block_repeats)]

    @property
    def num_params(self) -> int:
        """Number of trained parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    @property
    def numbers_per_image(self) -> int:
        """Elements of the tokens of one image, N · D."""
        return self.tokens.num_tokens * self.config.width

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw the initial weights.

        Linear weights, CLS tokens, registers and positions are truncated normal with std 0.02, biases 0; the patch
        embedding keeps a convolution's default, uniform within ± 1/sqrt(fan in). `model.init` may change the attention.
        """
        for module in self.modules():
            if isinstance(module, ReLUConv2d):
                nn.init.kaiming_normal_(module.weight, generator=generator)
            elif isinstance(module, nn.Conv2d):
                bound = module.weight[0].numel() ** -0.5
                nn.init.uniform_(module.weight, -bound, bound, generator=generator)
                if module.bias is not None:
                    nn.init.uniform_(module.bias, -bound, bound, generator=generator)
            elif isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
                module.reset_parameters()
            elif isinstance(module, LayerScale):
                nn.init.constant_(module.gamma, module.start)
        for parameter in self.tokens.parameters(recurse=False):
            nn.init.trunc_normal_(parameter, std=0.02, generator=generator)
        INITS[self.config.init](self.blocks, generator)

    def forward(self, images: Tensor, drop_path: Tensor | None = None, dropout: Tensor | None = None) -> Tensor:
        """The logits (B, K) of images; without pooled patches, the last block computes only CLS tokens.

        Args:
            images: as for `features`.
            drop_path: as for `features`.
            dropout: as for `features`.
        """
        return self.classify(self.features(images, drop_path, dropout, taken=self.tokens.num_read))

    def classify(self, tokens: Tensor) -> Tensor:
        """The logits (B, K) of the output of `features`, (B, N, D).

        With a distillation token, both heads' probabilities are averaged, and the logits are their logarithms.

        Args:
            tokens: (B, N, D).
        """
        logits = self.heads(tokens)
        return logits[0] if len(logits) == 1 else torch.stack(logits).log_softmax(dim=2).logsumexp(dim=0) - log(2)

    def heads(self, tokens: Tensor) -> list[Tensor]:
        """The logits (B, K) of each head: of the pooled tokens and, if there is one, of the distillation token."""
        own = self.head(self.pool(tokens))
        return [own] if self.distilled_head is None else [own, self.distilled_head(tokens[:, self.tokens.num_cls])]

    def loss(
        self, images: Tensor, targets: Tensor, drop_path: Tensor | None = None, *, scale: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """`scale` times the sum of the images' cross-entropies, and `scale` times how many are right, by `head_kernels`.

        Args:
            targets: class probabilities, (B, K).
        """
        tokens = self.refine(self.embed(images), drop_path, taken=self.tokens.num_read)
        return head_loss(tokens, targets, *head_parts(self, scale))

    def features(
        self,
        images: Tensor,
        drop_path: Tensor | None = None,
        dropout: Tensor | None = None,
        *,
        taken: int | None = None,
    ) -> Tensor:
        """The tokens of images after the blocks and the last norm.

        Args:
            images: normalized pixels, (B, C, H, W).
            drop_path: factors from `drop_path_factors`, (L, 2, B); None keeps every branch.
            dropout: keys of `pocketvit.model.dropout`, int64 (1 + 3·L, B); None drops nothing.
            taken: number of tokens needed, from the first; None for all.
        Returns:
            (B, N, D), or (B, taken, D): the tokens in the order of `Tokens`, patches row by row.
        Raises:
            InputError: images of another shape than the model's.
        """
        return self.encode(self.embed(images), drop_path, dropout, taken=taken)

    def embed(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) as tokens (B, N, D) with their positions; raises as `features`."""
        if images.shape[1:] != self.image_shape:
            wanted = ", ".join(map(str, self.image_shape))
            raise InputError(
                f"images have shape {tuple(images.shape)}, not (B, {wanted}); resize them, or make the model with "
                "another image_size"
            )
        if self.stem_kernels(images).name == "reference":
            return self.tokens(images)
        return stem(images, *stem_parts(self.tokens))

    def encode(
        self, x: Tensor, drop_path: Tensor | None = None, dropout: Tensor | None = None, *, taken: int | None = None
    ) -> Tensor:
        """Tokens (B, N, D), of all patches or of some, after the blocks and the last norm; as for `features`."""
        return self.norm(self.refine(x, drop_path, dropout, taken=taken))  # it acts on each token separately

    def refine(
        self, x: Tensor, drop_path: Tensor | None = None, dropout: Tensor | None = None, *, taken: int | None = None
    ) -> Tensor:
        """Tokens (B, N, D) after the blocks, but before the last norm; as for `features`."""
        num_tokens = x.shape[1]
        kernels = cast(Kernels, self.block_kernels(x.device, x.dtype, num_tokens).name)
        if kernels != "reference":
            blocks, norms = [block for block in self.blocks if isinstance(block, Block)], None
            with torch.autocast(x.device.type, enabled=False):
                if kernels == "persistent":
                    weights, norms = fold_but_norms(blocks)
                    norms = repeated(norms, self.config.block_repeats)
                else:
                    weights = fold(blocks)
            weights = repeated(weights, self.config.block_repeats)
            plan = plan_of(self.config, num_tokens, taken or num_tokens)
            return run_blocks(x, drop_path, weights, plan, norms=norms, kernels=kernels)  # (B, N or taken, D)
        layers, places = self.layers, None
        if dropout is not None:
            x, places = drop(x, self.config.dropout, dropout[0]), dropout[1:].unflatten(0, (len(layers), -1))
        for i, block in enumerate(layers):
            last = i == len(layers) - 1 and Block.is_standard(block)
            fewer = (taken,) if last and taken else ()
            keys = {} if places is None else {"dropout": places[i]}
            x = block(x, None if drop_path is None else drop_path[i], *fewer, **keys)  # (B, N or taken, D)
        return x[:, :taken]

    def block_kernels(self, device: torch.device, dtype: torch.dtype, num_tokens: int | None = None) -> Choice:
        """The implementation of the blocks for tokens of this type: the chosen kernels if supported, else PyTorch."""
        where = self.config, self.blocks[0], num_tokens or self.tokens.num_tokens, device, dtype
        kinds = {"persistent": partial(not_persistent, *where), "fused": partial(not_fused, *where)}
        return choose("the blocks", self.kernels, kinds, fall_back=True)

    def use_side(self, side: int | None) -> None:
        """From now on, train on images of this side in pixels; see `Tokens.use_side`."""
        self.tokens.use_side(side)

    def stem_kernels(self, images: Tensor) -> Choice:
        """The implementation of the stem for such images: the kernels beside persistent blocks if supported, else PyTorch."""
        return self._beside("the stem", images, partial(not_stem, self.tokens, images.device))

    def head_kernels(self, images: Tensor) -> Choice:
        """The same for the head and its loss, `loss`."""
        return self._beside("the head", images, partial(not_head, self, images.device))

    def _beside(self, what: str, images: Tensor, why_not: Callable[[], str | None]) -> Choice:
        """The implementation of what has kernels beside persistent blocks only, unless `why_not` gives a reason."""

        def not_persistent_or() -> str | None:
            blocks = self.block_kernels(images.device, images.dtype).name
            return why_not() if blocks == "persistent" else f"the blocks run as {blocks}"

        kinds = {"persistent": not_persistent_or, "fused": lambda: "only persistent blocks have it"}
        return choose(what, self.kernels, kinds, fall_back=True)

    def use_kernels(self, kernels: Kernels) -> None:
        """Choose the implementation of blocks and attention: `train.kernels`."""
        self.kernels = kernels
        for module in self.modules():
            if isinstance(module, Mixer):
                module.kernels = "reference" if kernels == "reference" else "auto"


INITS = {"normal": lambda *_: None, "mimetic": start_mimetic}
"""What `model.init` changes in the blocks' initial weights."""
