"""The data sets besides CIFAR that can be downloaded by name, from their authors or a mirror that keeps the same files.

Checksums are those that torchvision and others check; sizes are those of the downloads.
"""

from collections.abc import Callable

import numpy as np

from pocketvit.data.dataset import Decoded
from pocketvit.data.fetch.download import MOST_BYTES
from pocketvit.data.fetch.offers import Offer, RemoteFile, RemoteSet

GRAY = "--augment.policy none --augment.crop-pad 2"
"""Of the paper's recipe for gray images of 28 pixels a side: no changes of color, small shifts."""
ONE_WAY = "--augment.flip-prob 0"
"""For digits and letters, whose mirror images are others."""


def _counts(num_train: int, num_test: int, num_classes: int, side: int) -> Callable[[Decoded], bool]:
    """Whether a set has so many images of so many pixels a side; which ones they are, only the checksums prove."""

    def fits(decoded: Decoded) -> bool:
        splits = (decoded.train, num_train), (decoded.test, num_test)
        return len(decoded.class_names) == num_classes and all(
            split is not None
            and len(split) == count
            and split.image_size == (side, side)
            and bool(np.bincount(split.labels, minlength=num_classes).all())
            for split, count in splits
        )

    return fits


def _idx(*places: tuple[str, str], md5: tuple[str, str, str, str]) -> tuple[Offer, ...]:
    """The four files of MNIST, or of a set of its form, from any of some servers."""
    names = [f"{split}-{part}-ubyte.gz" for split in ("train", "t10k") for part in ("images-idx3", "labels-idx1")]
    return tuple(
        Offer(
            name, tuple(RemoteFile(f"{url}/{file}", f"md5:{digest}") for file, digest in zip(names, md5, strict=True))
        )
        for name, url in places
    )


def _archive(url: str, md5: str, unpacked: int, wanted: str = ".*", most_bytes: int = MOST_BYTES) -> tuple[Offer]:
    """A set in one archive."""
    return (Offer("archive", (RemoteFile(url, f"md5:{md5}", most_bytes, unpacked, wanted),)),)


SETS = (
    RemoteSet(
        name="mnist",
        description="70,000 gray handwritten digits of 28 × 28 pixels in 10 classes",
        size="12 MB",
        offers=_idx(
            ("mirror of PyTorch", "https://ossci-datasets.s3.amazonaws.com/mnist"),
            ("mirror of CVDF", "https://storage.googleapis.com/cvdf-datasets/mnist"),
            md5=(
                "f68b3c2dcbeaaa9fbdd348bbdeb94873", "d53e105ee54ea40749a09fcbcd1e9432",
                "9fb629c4189551a2d022fa330f9573f3", "ec29112dd5afa0611ce80d1b7f02629c",
            ),
        ),
        is_real=_counts(60_000, 10_000, 10, 28),
        licence="CC BY-SA 3.0, as Keras states",
        flags=f"{GRAY} {ONE_WAY}",
    ),
    RemoteSet(
        name="fashion-mnist",
        description="70,000 gray pictures of clothes of 28 × 28 pixels in 10 classes",
        size="31 MB",
        offers=_idx(
            ("Zalando", "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"),
            md5=(
                "8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe",
                "bef4ecab320f06d8554ea6380940ec79", "bb300cfdad3c16e7a12a480ee83cd310",
            ),
        ),
        is_real=_counts(60_000, 10_000, 10, 28),
        licence="MIT",
        flags=GRAY,
        class_names=(
            "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
        ),
    ),
    RemoteSet(
        name="emnist",
        description="131,600 gray handwritten digits and letters of 28 × 28 pixels in 47 classes (its set balanced)",
        size="562 MB",
        offers=_archive(
            "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip", "58c8d27c78d21e728a6bc7b3cc06412e",
            2**31, r"gzip/emnist-balanced-(train|test)-(images-idx3|labels-idx1)-ubyte\.gz",
        ),
        is_real=_counts(112_800, 18_800, 47, 28),
        flags=f"{GRAY} {ONE_WAY}",
    ),
    RemoteSet(
        name="svhn",
        description="99,289 color photos of house numbers' digits of 32 × 32 pixels in 10 classes",
        size="246 MB",
        offers=(
            Offer(
                "Stanford",
                (
                    RemoteFile("http://ufldl.stanford.edu/housenumbers/train_32x32.mat", "md5:e26dedcc434d2e4c54c9b2d4a06d8373"),
                    RemoteFile("http://ufldl.stanford.edu/housenumbers/test_32x32.mat", "md5:eb5a983be6a315427106f1b164d9cef3"),
                ),
            ),
        ),
        is_real=_counts(73_257, 26_032, 10, 32),
        licence="for non-commercial use only",
        flags=f"--augment.policy svhn {ONE_WAY}",
    ),
    RemoteSet(
        name="cinic10",
        description="180,000 color photos of 32 × 32 pixels in CIFAR-10's 10 classes, and 90,000 for validation, not used",
        size="688 MB",
        offers=_archive(
            "https://datashare.ed.ac.uk/bitstream/handle/10283/3192/CINIC-10.tar.gz", "6ee4d0c996905fe93221de577967a372", 2**31
        ),
        is_real=_counts(90_000, 90_000, 10, 32),
        licence="CC BY 4.0",
    ),
    RemoteSet(
        name="tiny-imagenet",
        description="110,000 color photos of 64 × 64 pixels in 200 classes",
        size="248 MB",
        offers=_archive(
            "http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de",
            2**30, r"tiny-imagenet-200/(train/.*\.JPEG|val/.*)",
        ),
        is_real=_counts(100_000, 10_000, 200, 64),
        licence="ImageNet's terms: for non-commercial research and education",
        flags="--model.patch-size 8 --augment.crop-pad 8 --augment.policy imagenet",
    ),
    RemoteSet(
        name="stl10",
        description="13,000 color photos of 96 × 96 pixels in 10 classes, and 100,000 without labels, not used",
        size="2.6 GB",
        offers=_archive(
            "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz", "91f7769df0f17e558f3565bffb0c7dfb",
            2**32, r"stl10_binary/((train|test)_[Xy]\.bin|class_names\.txt)", most_bytes=3 * 2**30,
        ),
        is_real=_counts(5_000, 8_000, 10, 96),
        licence="none stated; the photos are from ImageNet, for non-commercial research and education",
        flags="--model.patch-size 12 --augment.crop-pad 12 --batch-size 64",
    ),
)  # fmt: skip
