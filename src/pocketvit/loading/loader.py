"""Load augmented batches to the device, in the order of each pass.

A pass is planned on the CPU (`TrainLoader.plan`) and loaded in chunks of whole steps: their images are collected in
place (`TrainLoader.read`), then augmented on the device (`TrainLoader.bring`). The first two do not use
the device, so they can run in other threads while it trains. On a GPU, the training images are usually in its
memory (`image_store`) and a chunk is a whole pass: no copy from the host, and one augmentation call for 50,000 images.

Shapes: S steps, L layers, B batch, B′ the share of it that this process trains on, C channels, H W pixels, n numbers that
the objective draws for an image.
"""

from dataclasses import dataclass
from typing import assert_never

import numpy as np
import torch

from pocketvit.augment.augment import ImageTable, augment, draw_images
from pocketvit.augment.batch import Chunk
from pocketvit.augment.custom import apply_custom_policy, check_policy
from pocketvit.augment.mix import MIX_COLUMNS, draw_mix
from pocketvit.config import AugmentConfig, DataConfig
from pocketvit.config.training import Kernels
from pocketvit.data.dataset import Split
from pocketvit.device import to_device
from pocketvit.errors import InputError
from pocketvit.loading.balance import balanced_order
from pocketvit.loading.image_store import TrainImages
from pocketvit.randomness import Stream, permutation, raw
from pocketvit.usercode import Code

CHUNK_IMAGES = {"cuda": 65_536, "mps": 4_096, "cpu": 1_024}
"""Most images per chunk: enough to keep the device busy, few enough to show progress."""
CHUNK_BYTES = 2**28  # most bytes of pixels per chunk, for large images: up to four chunks are on the device at once


@dataclass(frozen=True)
class PassPlan:
    """A pass, or a part of it, without the pixels, in the order of the images."""

    indices: np.ndarray  # of the images, int64, (S·B,)
    images: ImageTable  # the augmentation of each, (S·B,) rows
    mix: np.ndarray  # the mixing of each batch, float32, (S, 7)
    drop_path: np.ndarray | None = None  # stochastic depth's factors, float32, (S, L, 2, B); None keeps every branch
    draws: np.ndarray | None = None  # uniform numbers for the objective, float32, (S, B, n); None if it draws none
    dropout: np.ndarray | None = None  # keys of dropout's masks, int64, (S, 1 + 3·L, B); None drops nothing


Reading = tuple[PassPlan, np.ndarray | None]
"""A part of a plan and its pixels, uint8 (S·B′, H, W, C), not augmented; None if the device has them."""


class TrainLoader:
    """Batches of augmented training images.

    Args:
        data: the order (fresh passes or repeated images).
        batch_size: B.
        device: of the batches.
        share: positions within a batch to load, B′ of them: mirror pairs, if several processes share the
            work; None loads all.
        kernels: of the augmentation, as for `augment`.
    Raises:
        InputError: fewer images than one batch, an invalid user-defined policy, or not enough memory to keep the
            images where `data.keep` says.
    """

    def __init__(
        self,
        split: Split,
        *,
        data: DataConfig,
        augment: AugmentConfig,
        seed: int,
        batch_size: int,
        device: torch.device,
        share: np.ndarray | None = None,
        kernels: Kernels = "auto",
    ) -> None:
        if len(split) < batch_size:
            raise InputError(
                f"batch_size={batch_size} is more than the {len(split)} training images; use a smaller one"
            )
        self.split, self.data, self.augment = split, data, augment
        self.seed, self.batch_size, self.device = seed, batch_size, device
        self.share = np.arange(batch_size) if share is None else share
        self.kernels: Kernels = kernels
        self.image_size = split.image_size
        if isinstance(augment.policy, Code):
            check_policy(augment.policy, self.image_size)
        self.steps_per_pass = len(split) // batch_size  # a pass drops its last, partial batch
        chunk_images = min(CHUNK_IMAGES[device.type], CHUNK_BYTES * len(split) // split.images.size)
        self.chunk_steps = max(1, min(self.steps_per_pass, chunk_images // batch_size))
        """Most steps of a chunk; independent of where images are kept, because processes must agree on it."""
        self.images = TrainImages(split.images, wanted=data.keep, device=device)
        self.labels = to_device(split.labels, device)

    def plan(self, pass_index: int) -> PassPlan:
        """Draw a pass. The same for a given seed and pass, whatever ran before."""
        taken = self.steps_per_pass * self.batch_size
        match self.data.repeats, self.data.balance:
            case "fresh", "sampling":
                # An image that comes twice is augmented anew, so rows belong to places in the pass.
                where = {"seed": self.seed, "pass_index": pass_index, "length": taken}
                indices, images = balanced_order(self.split.labels, **where), self._draw_images(pass_index)[:taken]
            case "fresh", "none" | "loss":
                indices = permutation(self.seed, Stream.ORDER, pass_index, len(self.split))[:taken]
                images = self._draw_images(pass_index)[indices]
            case "batch", _:
                indices, images = self._plan_repeats(pass_index, taken)
            case other:
                assert_never(other)
        steps, image_size = self.steps_per_pass, self.image_size
        mix = draw_mix(self.augment, seed=self.seed, pass_index=pass_index, steps=steps, image_size=image_size)
        return PassPlan(indices, images, mix)

    def _plan_repeats(self, pass_index: int, taken: int) -> tuple[np.ndarray, ImageTable]:
        """Batch Augmentation: `num_repeats` passes share a shuffle, in which each image is repeated that often in a row.

        Copy c of an image is augmented as the image would be in pass c of the group, so the copies differ. Each
        batch is shuffled again; otherwise mirror partners, which CutMix and MixUp mix, would be copies of two images.

        Source: Hoffer et al. 2020, https://arxiv.org/abs/1901.09335
        """
        copies, size = self.data.num_repeats, len(self.split)
        first = pass_index - pass_index % copies
        start = (pass_index - first) * size  # where this pass begins in the group's copies · size images
        keys = raw(self.seed, Stream.REPEATS, pass_index, taken).reshape(-1, self.batch_size)  # (S, B)
        firsts = np.arange(start, start + taken, self.batch_size)[:, None]  # (S, 1)
        position = (firsts + np.argsort(keys, kind="stable")).ravel()  # (S, B) -> (S·B,)
        indices = permutation(self.seed, Stream.ORDER, first, size)[position // copies]
        tables = ImageTable.concatenate([self._draw_images(first + c) for c in range(copies)])
        return indices, tables[position % copies * size + indices]

    def _draw_images(self, pass_index: int, config: AugmentConfig | None = None) -> ImageTable:
        size, image_size = len(self.split), self.image_size
        return draw_images(
            config or self.augment, seed=self.seed, pass_index=pass_index, size=size, image_size=image_size
        )

    def load(self, plan: PassPlan, first_step: int, num_steps: int) -> Chunk:
        """Load some steps of a pass at once."""
        return self.bring(self.read(plan, first_step, num_steps))

    def read(self, plan: PassPlan, first_step: int, num_steps: int) -> Reading:
        """Collect the images of some steps of a pass, without using the device."""
        steps = np.arange(first_step, first_step + num_steps)
        rows = (steps[:, None] * self.batch_size + self.share).ravel()  # (S, B′) -> (S·B′,)
        here = slice(first_step, first_step + num_steps)
        drop_path = None if plan.drop_path is None else plan.drop_path[here][..., self.share]  # (S, L, 2, B′)
        draws = None if plan.draws is None else plan.draws[here][:, self.share]  # (S, B′, n)
        dropout = None if plan.dropout is None else plan.dropout[here][..., self.share]  # (S, 1 + 3·L, B′)
        part = PassPlan(plan.indices[rows], plan.images[rows], plan.mix[here], drop_path, draws, dropout)
        return part, self.images.collect(part.indices)

    def sample(self, indices: np.ndarray, *, pass_index: int | None) -> Chunk:
        """Some training images, unmixed, augmented as in a pass, or clean without one."""
        off = AugmentConfig(flip_prob=0, crop_pad=0, policy="none", erase_prob=0)
        table = self._draw_images(0, off) if pass_index is None else self._draw_images(pass_index)
        plan = PassPlan(indices, table[indices], np.empty((0, len(MIX_COLUMNS)), np.float32))
        return self.bring((plan, self.images.collect(indices)))

    def bring(self, reading: Reading) -> Chunk:
        """Move collected images to the device and augment them there, without waiting."""
        plan, pixels = reading
        images = augment(self.images.bring(plan.indices, pixels), plan.images, kernels=self.kernels)
        policy = self.augment.policy
        if plan.images.draws is not None and isinstance(policy, Code):
            images = apply_custom_policy(policy, images, plan.images.draws)
        return Chunk(
            images=images.to(self.device),
            labels=self.labels[to_device(plan.indices, self.device)],
            erase=to_device(plan.images.erase, self.device),
            mix=to_device(plan.mix, self.device),
            drop_path=None if plan.drop_path is None else to_device(plan.drop_path, self.device),
            draws=None if plan.draws is None else to_device(plan.draws, self.device),
            dropout=None if plan.dropout is None else to_device(plan.dropout, self.device),
        )
