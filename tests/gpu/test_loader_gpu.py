"""Training images on the GPU, in pinned host memory and on disk: the same bytes, the same run, and no waiting."""

import json

import numpy as np
import pytest
import torch

from pocketvit.config import AugmentConfig, DataConfig, override
from pocketvit.data import Split, Splits
from pocketvit.loading import image_store
from pocketvit.loading.image_store import TrainImages
from pocketvit.loading.loader import TrainLoader
from pocketvit.memory import FreeMemory, free_gpu_memory
from pocketvit.recipes import recipe
from pocketvit.training import train
from pocketvit.training.progress import SilentReporter
from pocketvit.training.trainer import Trainer

pytestmark = pytest.mark.gpu

PLACES = ("gpu", "host", "disk")
SLEEP_CYCLES = 3_000_000_000
"""More than a second and a half of a GPU's time, also on a busy host."""


@pytest.fixture(scope="module")
def mapped(tmp_path_factory) -> Split:
    """2,048 images of CIFAR-10's size, mapped from disk as the cache maps them."""
    path = tmp_path_factory.mktemp("set") / "images.npy"
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 2_048)
    images = rng.integers(0, 150, (2_048, 32, 32, 3)) + labels[:, None, None, None] * 10
    np.save(path, images.astype(np.uint8))
    return Split(np.load(path, mmap_mode="c"), labels)


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture
def short_chunks(monkeypatch):
    """Ten steps of 64 images, so that a pass of 32 steps has three whole chunks and a short one."""
    monkeypatch.setattr("pocketvit.loading.loader.CHUNK_IMAGES", {"cuda": 640})


def a_pass(split: Split, keep: str, device: torch.device, pass_index: int) -> list[torch.Tensor]:
    """All chunks of a pass, one after another."""
    loader = TrainLoader(
        split,
        data=DataConfig(keep=keep),
        augment=AugmentConfig(),
        seed=0,
        batch_size=64,
        device=device,
        share=np.union1d(np.arange(20), 63 - np.arange(20)),
    )
    plan, steps = loader.plan(pass_index), loader.steps_per_pass
    starts = range(0, steps, loader.chunk_steps)
    chunks = [loader.load(plan, first, min(loader.chunk_steps, steps - first)) for first in starts]
    return [torch.cat(tensors) for tensors in zip(*(chunk[:4] for chunk in chunks), strict=True)]


@pytest.mark.parametrize("keep", ["host", "disk"])
def test_chunks_are_the_same_bytes_wherever_images_are_kept(mapped, device, short_chunks, keep):
    odd = mapped.take(np.arange(1, 2_048, 2))
    for split in (mapped, odd):
        for pass_index in (0, 1):
            expected, found = (a_pass(split, place, device, pass_index) for place in ("gpu", keep))
            assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


class Notes(SilentReporter):
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


def test_a_run_is_the_same_wherever_images_are_kept(mapped, short_chunks, monkeypatch, tmp_path):
    splits = Splits(mapped, None, mapped.take(np.arange(100)), tuple("abcdefghij"), "synthetic", ())
    monkeypatch.setattr("pocketvit.training.run.open_splits", lambda *_: splits)
    losses = {}
    for place in PLACES:
        values = {
            "batch_size": 64,
            "model.width": 64,
            "model.depth": 2,
            "model.num_heads": 4,
            "data.keep": place,
            "schedule.passes": 2,
            "schedule.warmup_passes": 1,
            "train.device": "cuda",
            "train.precision": "fp32",
            "train.compile": False,
            "out": tmp_path / place,
        }
        said = Notes()
        train(override(recipe("paper"), values), said)
        about_images = [line for line in said.lines if line.startswith("training images:")]
        assert len(about_images) == (0 if place == "gpu" else 1), about_images
        lines = (tmp_path / place / "metrics.jsonl").read_text().splitlines()
        losses[place] = [json.loads(line)["loss"] for line in lines]
    for place in ("host", "disk"):
        np.testing.assert_allclose(losses[place], losses["gpu"], rtol=1e-4)


def test_auto_goes_to_the_host_and_then_to_disk(mapped, device, monkeypatch):
    for free, place in ((FreeMemory(1, 2**40), "host"), (FreeMemory(1, 1), "disk"), (FreeMemory(2**40, 1), "gpu")):
        monkeypatch.setattr(image_store, "free_memory", lambda device, free=free: free)
        kept = TrainImages(mapped.images, wanted="auto", device=device)
        assert kept.place == place and (kept.note is None) == (place == "gpu")


def test_the_host_copy_is_pinned_and_released(mapped, device):
    for _ in range(2):  # memory that was not released could not be locked a second time
        kept = TrainImages(mapped.images, wanted="host", device=device)
        assert torch.from_numpy(kept.images).is_pinned()
        assert np.array_equal(kept.images, mapped.images)
        del kept


@pytest.mark.parametrize("keep", ["host", "disk"])
def test_the_copy_runs_beside_the_steps(mapped, device, keep):
    kept = TrainImages(mapped.images, wanted=keep, device=device)
    indices = np.random.default_rng(0).permutation(2_048)
    kept.bring(indices, kept.collect(indices))  # the first time, memory is allocated
    torch.cuda.synchronize()
    torch.cuda._sleep(SLEEP_CYCLES)
    torch.cuda.set_sync_debug_mode("error")
    try:
        images = kept.bring(indices, kept.collect(indices))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    kept.copying.synchronize()
    assert not torch.cuda.current_stream().query(), "the copy must not wait for what the device was asked before"
    assert torch.equal(images.cpu(), torch.from_numpy(mapped.images[indices]))


def test_a_chunk_is_not_overwritten_before_it_is_read(mapped, device):
    """The host runs ahead: what it copies next must not land where the device still has to read."""
    kept = TrainImages(mapped.images, wanted="disk", device=device)
    orders = [np.random.default_rng(seed).permutation(2_048) for seed in range(6)]
    torch.cuda._sleep(SLEEP_CYCLES)
    read_later = [kept.bring(order, kept.collect(order)).clone() for order in orders]
    for order, images in zip(orders, read_later, strict=True):
        assert torch.equal(images.cpu(), torch.from_numpy(mapped.images[order]))


def test_a_chunk_longer_than_the_first_is_captured_anew(synthetic_splits, device):
    """As after a stop within a pass, whose rest makes a short first chunk."""
    small = {"batch_size": 64, "model.width": 64, "model.depth": 1, "model.num_heads": 4}
    small |= {"train.compile": False, "train.precision": "fp32"}
    losses = []
    for captured in (True, False):
        config = override(recipe("paper"), small | {"train.cuda_graph": captured})
        trainer = Trainer(config, synthetic_splits, device, SilentReporter())
        for first, count in ((0, 2), (2, 5), (7, 1)):
            trainer.step.set_chunk(trainer.chunks.load(0, first, count))
            for _ in range(count):
                trainer.step()
        losses.append(trainer.step.losses[:8].cpu())
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-5)


def test_free_memory_falls_with_what_is_held_and_with_what_is_allowed(device):
    size, slack = 2**30, 2**26

    def seen() -> tuple[int, int]:
        """By how much free memory falls with a tensor, and with one that is gone."""
        torch.cuda.empty_cache()
        before = free_gpu_memory(device)
        held = torch.empty(size, dtype=torch.uint8, device=device)
        falls = before - free_gpu_memory(device)
        del held
        return falls, before - free_gpu_memory(device)

    tries = [seen() for _ in range(20)]  # of which other processes on the GPU may disturb some
    assert any(abs(held - size) < slack and abs(gone) < slack for held, gone in tries), tries
    torch.cuda.set_per_process_memory_fraction(0.05)
    try:
        assert free_gpu_memory(device) < 0.05 * torch.cuda.get_device_properties(device).total_memory
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
