"""The order of the images, pass by pass, and the augmented batches on the device.

A pass is planned on the CPU (`TrainLoader.plan`: pure NumPy, so it can run in another thread while the device
trains) and loaded in chunks of whole steps (`TrainLoader.load`). On a GPU the whole training set lives in its
memory and a chunk is usually a whole pass: no copy from the host, and one augmentation call for 50,000 images.

Shapes: S steps, B batch, B′ the share of it that this process trains on, C channels, H W pixels.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pocketvit.config import AugmentConfig, DataConfig
from pocketvit.data.augment import ImageTable, augment, draw_images
from pocketvit.data.dataset import Split
from pocketvit.data.mix import MIX_COLUMNS, draw_mix
from pocketvit.data.transfer import to_device
from pocketvit.errors import InputError
from pocketvit.randomness import Stream, permutation

CHUNK_IMAGES = {"cuda": 65_536, "mps": 4_096, "cpu": 1_024}
"""Most images brought to the device at once: enough to fill it, few enough that progress shows."""
AUGMENT_IMAGES = 8_192
"""Most images augmented at once, so that the intermediate results stay under what a training step needs."""


@dataclass(frozen=True)
class PassPlan:
    """Everything about a pass but the pixels, in the order in which the images are taken."""

    indices: np.ndarray
    """Which image, int64, (S·B,)."""
    images: ImageTable
    """How each is augmented, (S·B,) rows."""
    mix: np.ndarray
    """How each batch is mixed, float32, (S, 7)."""


@dataclass(frozen=True)
class Chunk:
    """Some consecutive batches of a pass on the device, ready but for normalising, erasing and mixing."""

    images: Tensor
    """uint8, (S·B′, H, W, C)."""
    labels: Tensor
    """int64, (S·B′,)."""
    erase: Tensor
    """Boxes to erase, int64, (S·B′, 4)."""
    mix: Tensor
    """How each batch is mixed, float32, (S, 7)."""

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The four of them, in order."""
        return self.images, self.labels, self.erase, self.mix


class TrainLoader:
    """Batches of augmented training images.

    Args:
        split: the training images.
        data: the order (fresh passes or repeats in a row).
        augment: the augmentation.
        seed: the run's seed.
        batch_size: B.
        device: where batches are wanted.
        share: positions within a batch that are loaded, B′ of them: mirror pairs, where several processes share the
            work; none loads all.
    Raises:
        InputError: fewer images than one batch.
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
    ) -> None:
        if len(split) < batch_size:
            raise InputError(f"batch_size={batch_size} is more than the {len(split)} training images; choose fewer")
        self.split, self.data, self.augment = split, data, augment
        self.seed, self.batch_size, self.device = seed, batch_size, device
        self.share = np.arange(batch_size) if share is None else share
        self.image_size = tuple(split.images.shape[1:3])
        self.steps_per_pass = len(split) // batch_size
        """A pass drops its last, partial batch."""
        self.chunk_steps = max(1, min(self.steps_per_pass, CHUNK_IMAGES[device.type] // batch_size))
        self.resident = device.type == "cuda"
        if self.resident:
            self.images, self.labels = to_device(split.images, device), to_device(split.labels, device)

    def plan(self, pass_index: int) -> PassPlan:
        """Draw a pass. The same for a given seed and pass, whatever ran before."""
        taken = self.steps_per_pass * self.batch_size
        if self.data.repeats == "fresh":
            indices = permutation(self.seed, Stream.ORDER, pass_index, len(self.split))[:taken]
            images = self._draw_images(pass_index)[indices]
        else:
            indices, images = self._plan_repeats(pass_index, taken)
        mix = draw_mix(
            self.augment,
            seed=self.seed,
            pass_index=pass_index,
            steps=self.steps_per_pass,
            image_size=self.image_size,
        )
        return PassPlan(indices, images, mix)

    def _plan_repeats(self, pass_index: int, taken: int) -> tuple[np.ndarray, ImageTable]:
        """Batch Augmentation: `num_repeats` passes share a shuffle in which each image stands that often in a row.

        Copy c of an image is augmented as its image would be in pass c of the group, so no two copies are alike.

        Source: Hoffer et al. 2020, https://arxiv.org/abs/1901.09335
        """
        copies, size = self.data.num_repeats, len(self.split)
        first = pass_index - pass_index % copies
        start = (pass_index - first) * size  # where this pass begins in the group's copies · size images
        position = np.arange(start, start + taken)
        indices = permutation(self.seed, Stream.ORDER, first, size)[position // copies]
        tables = ImageTable.concatenate([self._draw_images(first + c) for c in range(copies)])
        return indices, tables[position % copies * size + indices]

    def _draw_images(self, pass_index: int) -> ImageTable:
        return draw_images(
            self.augment,
            seed=self.seed,
            pass_index=pass_index,
            size=len(self.split),
            image_size=self.image_size,
        )

    def load(self, plan: PassPlan, first_step: int, num_steps: int) -> Chunk:
        """Augment the images of some steps of a pass and bring them to the device."""
        steps = np.arange(first_step, first_step + num_steps)
        rows = (steps[:, None] * self.batch_size + self.share).ravel()  # (S, B′) -> (S·B′,)
        mix = plan.mix[first_step : first_step + num_steps]
        return self._augmented(plan.indices[rows], plan.images[rows], mix)

    def sample(self, indices: np.ndarray, *, pass_index: int | None) -> Chunk:
        """Some training images, unmixed, augmented as in a pass, or clean where there is none."""
        if pass_index is None:
            off = AugmentConfig(flip_prob=0, crop_pad=0, policy="none", erase_prob=0)
            table = draw_images(
                off, seed=self.seed, pass_index=0, size=len(self.split), image_size=self.image_size
            )
        else:
            table = self._draw_images(pass_index)
        return self._augmented(indices, table[indices], np.empty((0, len(MIX_COLUMNS)), np.float32))

    def _augmented(self, indices: np.ndarray, table: ImageTable, mix: np.ndarray) -> Chunk:
        if self.resident:
            where = to_device(indices, self.device)
            images, labels = self.images[where], self.labels[where]
        else:
            images, labels = torch.from_numpy(self.split.images[indices]), torch.from_numpy(self.split.labels[indices])
        pieces = range(0, len(indices), AUGMENT_IMAGES)
        augmented = [augment(images[i : i + AUGMENT_IMAGES], table[i : i + AUGMENT_IMAGES]) for i in pieces]
        return Chunk(
            images=torch.cat(augmented).to(self.device),
            labels=labels.to(self.device),
            erase=to_device(table.erase, self.device),
            mix=to_device(mix, self.device),
        )
