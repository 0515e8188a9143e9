"""Writers of the files of MNIST, EMNIST, SVHN and STL-10, as small as they can be."""

import gzip
import struct

import numpy as np
from scipy.io import savemat

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (30, 5, 7), dtype=np.uint8)
LABELS = (np.arange(30) % 3).astype(np.uint8)


def idx_bytes(array):
    """A file in IDX format, as its description says."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(folder, images, labels, name="", test="t10k", pack=True):
    """The four files of MNIST: the last six images are for testing."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, part in (("train", slice(None, -6)), (test, slice(-6, None))):
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            content = idx_bytes(array[part])
            file = folder / f"{name}{split}-{kind}-ubyte{'.gz' if pack else ''}"
            file.write_bytes(gzip.compress(content) if pack else content)
    return folder


def write_svhn(folder, count=12, pack=True, kind=np.uint8):
    """Both files, as MATLAB would write them."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
    labels = (np.arange(count) % 10 + 1).astype(kind)[:, None]
    for split in ("train", "test"):
        savemat(folder / f"{split}_32x32.mat", {"X": pixels, "y": labels}, do_compression=pack)
    return pixels, labels


def write_stl10(folder, count=10):
    """The files of the binary version: each color column by column, labels from 1."""
    folder.mkdir(parents=True, exist_ok=True)
    images = RNG.integers(0, 256, (count, 96, 96, 3), dtype=np.uint8)
    for split in ("train", "test"):
        (folder / f"{split}_X.bin").write_bytes(images.transpose(0, 3, 2, 1).tobytes())
        (folder / f"{split}_y.bin").write_bytes((np.arange(count) % 10 + 1).astype(np.uint8).tobytes())
    (folder / "unlabeled_X.bin").write_bytes(b"not read")
    names = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
    (folder / "class_names.txt").write_text("\n".join(names) + "\n")
    return images
