"""Random numbers with addresses, instead of drawn in sequence.

What happens to image i in pass p depends only on (seed, p, i): not on the device, the number of
processes, the batch size or what ran before. The same holds for a step's draws and (seed, p, step). So a run can be
resumed anywhere, split over processes or repeated, and is the same run.

This works because Philox is counter-based: a block of numbers is computed from its address (key and counter) without
drawing those before it. The key is (seed, stream), the counter's third word is the pass, and row r of a table is
the numbers r·columns … (r+1)·columns of that block. NumPy makes the numbers on the CPU, and they are copied to the
device, so they are the same everywhere.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", https://doi.org/10.1145/2063384.2063405
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """Independent streams of numbers within a run. Their values are part of every result: never renumber them."""

    ORDER = 0  # the order of the images in a pass
    IMAGE = 1  # flip and crop: a row per image
    ERASE = 2  # random erasing, whether at all: a row per image
    MIX = 3  # CutMix and MixUp: a row per step
    DROP_PATH = 4  # stochastic depth: a row per step
    INIT = 5  # the model's initial weights
    SPLIT = 6  # holding out a validation or test split
    SAMPLE = 7  # small samples of a data set: whitening patches, pictures for the report
    POLICY = 8  # AutoAugment and similar policies: a row per image
    REPEATS = 9  # the order within each batch where images are repeated: a row per step
    OBJECTIVE = 10  # what an objective draws for each image, such as pairs of patches: a row per step
    OBJECTIVE_INIT = 11  # the initial weights of an objective's own layers
    BALANCE = 12  # the order of a pass in which all classes come equally often
    DROPOUT = 13  # keys of dropout's masks: a row per step
    ERASE_TRIES = 1000  # the boxes that random erasing tries: ERASE_TRIES + t for try t = 0 … 99, a row per image


def raw(seed: int, stream: int, pass_index: int, size: int) -> np.ndarray:
    """The first `size` 32-bit words at the address (seed, stream, pass_index), uint32, (size,).

    Only Philox itself is used: NumPy keeps its output fixed over versions, which it does not promise for
    the distributions of `numpy.random.Generator`.
    """
    key = np.array([seed, stream], dtype=np.uint64)
    counter = np.array([0, 0, pass_index, 0], dtype=np.uint64)
    words = np.random.Philox(key=key, counter=counter).random_raw((size + 1) // 2)
    return words.astype("<u8", copy=False).view("<u4")[:size]


def uniform(seed: int, stream: int, pass_index: int, rows: int, columns: int) -> np.ndarray:
    """A table of numbers in [0, 1), float32, (rows, columns); row r is the same whatever `rows` is."""
    words = raw(seed, stream, pass_index, rows * columns) >> 8  # 24 bits: what a float32 holds exactly
    return (words.astype(np.float32) * np.float32(2**-24)).reshape(rows, columns)


def keys(seed: int, stream: int, pass_index: int, rows: int, columns: int) -> np.ndarray:
    """A table of numbers of 64 bits, int64, (rows, columns); row r is the same whatever `rows` is."""
    return raw(seed, stream, pass_index, 2 * rows * columns).view("<i8").astype(np.int64).reshape(rows, columns)


def permutation(seed: int, stream: int, pass_index: int, size: int) -> np.ndarray:
    """A random permutation of `size` elements, int64, (size,)."""
    return np.argsort(raw(seed, stream, pass_index, size), kind="stable")


def torch_seed(seed: int, stream: int) -> int:
    """A seed for a separate `torch.Generator`, if PyTorch draws (the initial weights)."""
    words = raw(seed, stream, 0, 2)
    return int(words[0]) << 31 | int(words[1]) >> 1


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed PyTorch's global CPU generator, for code that uses it; restore it afterwards."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def leaving_generators_alone() -> Iterator[None]:
    """Restore the global generators of PyTorch (also CUDA's, if in use), NumPy and Python afterwards."""
    import torch

    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
