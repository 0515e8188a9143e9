"""Where the training images are kept: the decision, the line about it, and memory that stays bounded."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pocketvit.config import AugmentConfig, DataConfig
from pocketvit.data import Dataset, Split, channel_stats
from pocketvit.data.dataset import MappedRows
from pocketvit.data.splits import split_dataset
from pocketvit.errors import InputError
from pocketvit.loading.image_store import TrainImages, choose_place, describe_place
from pocketvit.loading.loader import TrainLoader
from pocketvit.memory import FreeMemory

GIB = 2**30
CPU = torch.device("cpu")
H100 = FreeMemory(gpu=79 * GIB, host=200 * GIB)


@pytest.mark.parametrize(
    ("gib", "free", "place"),
    [
        (0.2, H100, "gpu"),
        (39.5, H100, "gpu"),
        (39.6, H100, "host"),
        (100, H100, "host"),
        (100.1, H100, "disk"),
        (312, H100, "disk"),
        (60, FreeMemory(gpu=79 * GIB, host=0), "disk"),
        (0.2, FreeMemory(gpu=0, host=200 * GIB), "host"),
    ],
)
def test_auto_takes_the_first_place_with_room(gib, free, place):
    assert choose_place("auto", int(gib * GIB), free) == place


@pytest.mark.parametrize("keep", ["gpu", "host", "disk"])
def test_a_place_asked_for_is_taken_up_to_all_of_its_memory(keep):
    assert choose_place(keep, 79 * GIB, H100) == keep


@pytest.mark.parametrize(("keep", "gib"), [("gpu", 80), ("host", 201)])
def test_a_place_that_is_too_small_is_refused(keep, gib):
    with pytest.raises(InputError, match=f"data.keep={keep}.* need {gib}.0 GiB .* use data.keep=auto"):
        choose_place(keep, gib * GIB, H100)


def test_the_line_says_where_and_why():
    assert describe_place("gpu", "auto", GIB, H100) is None
    assert describe_place("host", "auto", 60 * GIB, H100) == (
        "training images: 60.0 GiB, kept in pinned host memory and read ahead, because they need more than half of the "
        "79.0 GiB free on the GPU"
    )
    assert describe_place("disk", "auto", 312 * GIB, H100) == (
        "training images: 312.0 GiB, kept on disk and read ahead, because they need more than half of the 79.0 GiB free "
        "on the GPU and of the 200.0 GiB available to this process on the host"
    )
    assert describe_place("host", "host", GIB, H100).endswith("because data.keep=host says so")


@pytest.mark.parametrize("keep", ["gpu", "host"])
def test_a_gpus_places_are_refused_without_one(keep):
    with pytest.raises(InputError, match=f"data.keep={keep} is for runs on a GPU"):
        TrainImages(np.zeros((4, 8, 8, 3), np.uint8), wanted=keep, device=CPU)


@pytest.fixture(scope="module")
def mapped(tmp_path_factory) -> np.memmap:
    """A set of 8,000 images, 94 MiB, mapped from disk as the cache maps it."""
    path = tmp_path_factory.mktemp("set") / "images.npy"
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(8_000, 64, 64, 3))
    images[:] = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.divmod(np.arange(8_000), 256)  # each image carries its number
    images.flush()
    return np.load(path, mmap_mode="c")


def numbers(images) -> np.ndarray:
    """The number that each image carries."""
    return np.asarray(images)[:, 0, 0, 0].astype(int) * 256 + np.asarray(images)[:, 0, 0, 1]


def test_collecting_by_many_threads_keeps_the_order(mapped):
    kept = TrainImages(mapped, wanted="auto", device=CPU)
    for count in (0, 1, 255, 257, 5_000):
        indices = np.random.default_rng(count).integers(0, 8_000, count)
        assert np.array_equal(numbers(kept.collect(indices)), indices)


@pytest.fixture
def settled(mapped, monkeypatch):
    """Makes images that are kept as a GPU's are, with so much free memory; the CPU stands for the GPU."""

    def make(wanted: str, free: FreeMemory) -> TrainImages:
        monkeypatch.setattr("pocketvit.loading.image_store.free_memory", lambda device: free)
        kept = TrainImages(mapped, wanted="auto", device=CPU)
        kept._settle(wanted)
        return kept

    return make


def test_images_in_the_memory_of_a_gpu_are_all_there_and_collected_there(settled, mapped):
    kept = settled("auto", H100)
    assert kept.place == "gpu" and kept.note is None
    assert kept.on_gpu.shape == mapped.shape and np.array_equal(numbers(kept.on_gpu), np.arange(8_000))
    indices = np.array([7_999, 0, 3, 0])
    collected = kept.collect(indices)
    assert collected is None, "nothing is collected on the host"
    assert torch.equal(kept.bring(indices, collected), torch.from_numpy(mapped[indices]))


def test_images_too_large_for_a_gpu_stay_on_disk_and_say_so(settled, mapped):
    kept = settled("auto", FreeMemory(gpu=GIB // 16, host=0))
    assert kept.place == "disk" and kept.images is mapped and not hasattr(kept, "on_gpu")
    assert kept.note and "kept on disk" in kept.note
    with pytest.raises(InputError, match="data.keep=gpu, but the training images need 0.1 GiB"):
        settled("gpu", FreeMemory(gpu=GIB // 16, host=0))


class Locking:
    """The part of CUDA's interface that locks memory of the host; refuses if `status` is not 0."""

    cudaError = SimpleNamespace(success=0)

    def __init__(self, status: int) -> None:
        self.status, self.locked = status, {}

    def cudaHostRegister(self, address: int, num_bytes: int, flags: int) -> int:
        self.locked[address] = num_bytes
        return self.status

    def cudaHostUnregister(self, address: int) -> None:
        del self.locked[address]

    def cudaGetErrorString(self, status: int) -> str:
        return f"error {status}"


def test_a_copy_on_the_host_is_locked_whole_and_for_as_long_as_it_is_used(settled, mapped, monkeypatch):
    cuda = Locking(0)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: cuda)
    kept = settled("host", H100)
    assert kept.place == "host" and kept.note and kept.note.endswith("because data.keep=host says so")
    assert isinstance(kept.images, np.ndarray) and np.array_equal(numbers(kept.images), np.arange(8_000))
    assert cuda.locked == {kept.images.ctypes.data: mapped.nbytes}
    assert np.array_equal(numbers(kept.collect(np.array([5_000, 2]))), [5_000, 2])
    del kept
    assert not cuda.locked, "memory that stays locked is lost to the whole host"


def test_a_host_that_locks_no_memory_is_named(settled, monkeypatch):
    monkeypatch.setattr(torch.cuda, "cudart", lambda: Locking(2))
    with pytest.raises(InputError, match=r"cannot pin 0.1 GiB of host memory \(error 2\); use data.keep=disk"):
        settled("host", H100)


def test_what_fails_while_collecting_is_heard_of(mapped):
    with pytest.raises(IndexError):
        TrainImages(mapped, wanted="auto", device=CPU).collect(np.array([0, 8_000]))


def test_a_part_of_a_mapped_set_stays_on_disk(mapped):
    odd = Split(mapped, np.arange(8_000) % 10).take(np.arange(1, 8_000, 2))
    part = odd.take(np.array([5, 2, 9]))
    assert isinstance(odd.images, MappedRows) and isinstance(part.images, MappedRows)
    assert part.images.images is mapped, "rows of rows are rows of the set"
    assert part.images.shape == (3, 64, 64, 3) and part.images.size == mapped[:3].size and len(part) == 3
    copied = Split(np.array(mapped[[11, 5, 19]]), part.labels)
    assert np.array_equal(part.images[:], copied.images) and np.array_equal(part.images[1], copied.images[1])
    assert part.fingerprint == copied.fingerprint
    assert np.array_equal(channel_stats(part.images), channel_stats(copied.images))


def make_loader(images, batch_size: int = 64) -> TrainLoader:
    return TrainLoader(
        Split(images, np.arange(len(images)) % 10),
        data=DataConfig(),
        augment=AugmentConfig(),
        seed=0,
        batch_size=batch_size,
        device=CPU,
    )


def test_chunks_of_a_mapped_set_are_those_of_one_in_memory(mapped):
    rows = np.arange(1, 600, 2)
    on_disk, in_memory = make_loader(MappedRows(mapped, rows)), make_loader(np.array(mapped[rows]))
    for loaded, expected in zip(
        on_disk.load(on_disk.plan(2), 1, 3)[:4], in_memory.load(in_memory.plan(2), 1, 3)[:4], strict=True
    ):
        assert torch.equal(loaded, expected)


def test_chunks_of_large_images_are_short(mapped, monkeypatch):
    assert make_loader(mapped).chunk_steps == 1_024 // 64
    monkeypatch.setattr("pocketvit.loading.loader.CHUNK_BYTES", 200 * 64 * 64 * 3)
    assert make_loader(mapped).chunk_steps == 200 // 64
    assert make_loader(mapped, batch_size=500).chunk_steps == 1


def test_a_mapped_set_never_comes_into_memory_whole(mapped):
    """Everything that a run does with its training images, on a set of 94 MiB, in a fifth of that."""
    labels = np.arange(8_000) % 10
    dataset = Dataset("synthetic", Split(mapped, labels), Split(mapped, labels), tuple("abcdefghij"))
    tracemalloc.start()
    try:
        splits = split_dataset(dataset, DataConfig(val_frac=0.1))
        channel_stats(splits.train.images)
        loader = make_loader(splits.train.images)
        plan = loader.plan(0)
        for first in range(0, loader.steps_per_pass, 4):
            loader.read(plan, first, min(4, loader.steps_per_pass - first))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < mapped.nbytes / 5
