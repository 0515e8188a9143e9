"""The data sets that can be downloaded: their addresses, and how to check the result.

A data set is downloaded to a hidden folder, which gets its final name only after its images were decoded and checked. So
a folder with the name of a data set is always complete.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pocketvit.data.dataset import Decoded, channel_stats, is_cifar10
from pocketvit.data.fetch.download import Progress, download
from pocketvit.data.fetch.offers import Offer, RemoteFile, RemoteSet
from pocketvit.data.fetch.other_sets import SETS
from pocketvit.data.fetch.paths import write_error
from pocketvit.data.fetch.unpack import unpack
from pocketvit.data.formats import parquet
from pocketvit.data.formats import registry as formats
from pocketvit.data.pixels import PLAIN
from pocketvit.data.raw_splits import CLASS_NAMES, in_memory
from pocketvit.errors import InputError
from pocketvit.files import write_atomically


def fetch(remote: RemoteSet, folder: Path, progress: Progress | None) -> Decoded:
    """Download a data set by the first offer that works, check it, and move it into place.

    An interrupted download is resumed by the next call.

    Args:
        progress: called after every block, file by file.
    Raises:
        InputError: no offer worked; the message says why for each.
    """
    scratch = scratch_of(folder)
    failures = []
    for offer in remote.offers:
        try:
            decoded = _accept(remote, offer, scratch / offer.name, progress)
        except InputError as error:
            failures.append(f"{offer.name}: {error}")
        else:
            put_in_place(scratch / offer.name, folder)
            shutil.rmtree(scratch, ignore_errors=True)
            return decoded
    raise InputError(f"{remote.name} cannot be downloaded. {'. '.join(failures)}")


def scratch_of(folder: Path) -> Path:
    """The hidden folder, next to the final one, that a data set is downloaded to."""
    return folder.with_name(f".{folder.name}")


def put_in_place(fetched: Path, folder: Path) -> None:
    """Give a complete folder its final name."""
    try:
        fetched.rename(folder)
    except OSError as error:
        raise write_error(folder, error) from error


def _accept(remote: RemoteSet, offer: Offer, place: Path, progress: Progress | None) -> Decoded:
    """Download an offer's files to `place`, and decode and check them."""
    if offer.needs_pyarrow:
        parquet.require_pyarrow()
    for file in offer.files:
        if not file.place(place).exists():
            download(file.url, file.place(place), file.checksum, progress, file.most_bytes)
    try:
        for file in offer.files:
            if file.most_unpacked is not None:
                unpack(file.place(place), place, file.wanted, file.most_unpacked)
        if remote.class_names:
            write_atomically(place / CLASS_NAMES, "\n".join(remote.class_names).encode())
        decoded = formats.find_format(formats.detect(place)).read(place, PLAIN, in_memory)
        if remote.is_real(decoded):
            return decoded
        raise InputError(f"the downloaded images are not those of {remote.name}")
    except InputError:
        shutil.rmtree(place, ignore_errors=True)  # the next call must not use a broken download
        for file in offer.files:
            file.place(place).unlink(missing_ok=True)
        raise


CIFAR100_CLASSES = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man
    maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree
    plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail
    snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout
    tulip turtle wardrobe whale willow_tree wolf woman worm
"""
"""CIFAR-100's classes, in order."""
CIFAR100_TRAIN_STATS = (
    (0.5070751592371323, 0.48654887331495095, 0.4409178433670343),
    (0.2673342858792401, 0.2564384629170883, 0.27615047132568404),
)
"""Mean and standard deviation of the channels of its training images."""
CIFAR100_TEST_STATS = (
    (0.5088964127604166, 0.48739301317401956, 0.44194221124387256),
    (0.2682515741720801, 0.2573637364478126, 0.2770957707973042),
)
"""Those of its test images."""


def _is_cifar100(decoded: Decoded) -> bool:
    """Whether the counts, class names and channel statistics are those of CIFAR-100, as its users publish them.

    The means have enough digits to determine the sums of all pixels exactly, but not which label belongs to which image;
    that only the checksums of the files prove.
    """
    if decoded.test is None or decoded.class_names != tuple(CIFAR100_CLASSES.split()):
        return False
    counts_fit = all(
        (np.bincount(split.labels, minlength=100) == count).all()
        for split, count in ((decoded.train, 500), (decoded.test, 100))
    )
    return counts_fit and all(
        np.allclose(channel_stats(split.images), published, rtol=0, atol=1e-11)
        for split, published in ((decoded.train, CIFAR100_TRAIN_STATS), (decoded.test, CIFAR100_TEST_STATS))
    )


def _cifar(
    num_classes: int, hub: str, train: str, test: str, md5: str, is_real: Callable[[Decoded], bool]
) -> RemoteSet:
    """CIFAR-10 or CIFAR-100, from the Hub or else from its author's page.

    Args:
        hub: version and folder in the Hub's repository.
        train: SHA-256 of the training images there.
        test: SHA-256 of the test images there.
        md5: of the archive, as its author publishes it.
    """
    place = f"https://huggingface.co/datasets/uoft-cs/cifar{num_classes}/resolve/{hub}"
    archive = f"https://www.cs.toronto.edu/~kriz/cifar-{num_classes}-python.tar.gz"
    shards = tuple(
        RemoteFile(f"{place}/{split}-00000-of-00001.parquet", f"sha256:{digest}")
        for split, digest in (("train", train), ("test", test))
    )
    return RemoteSet(
        name=f"cifar{num_classes}",
        description=f"60,000 color photos of 32 × 32 pixels in {num_classes} classes",
        size="about 145 MB",
        offers=(Offer("parquet", shards, needs_pyarrow=True), Offer("archive", (RemoteFile(archive, f"md5:{md5}"),))),
        is_real=is_real,
    )


_CIFAR10 = _cifar(
    num_classes=10,
    hub="0b2714987fa478483af9968de7c934580d0bb9a2/plain_text",
    train="8428b53a88a11ac374111006708df51469e315a22ac6d66470afd9c78d2ae883",
    test="841389e6f2d64f28bf17310e430aebac20ec3ba611a3c5e231dc93c645ce84de",
    md5="c58f30108f718f92721af3b95e74349a",
    is_real=is_cifar10,
)
_CIFAR100 = _cifar(
    num_classes=100,
    hub="aadb3af77e9048adbea6b47c21a81e47dd092ae5/cifar100",
    train="694865d6b990e234804f01268586c41e88bcbbb75e20858432c05ad4081aca23",
    test="98776c529bb146a9c791229df74a5cf076be9b43d82dbbd334b6a7788d73dc68",
    md5="eb9058c3a382ffc7106e4002c42a8d85",
    is_real=_is_cifar100,
)

REMOTE_SETS = {known.name: known for known in (_CIFAR10, _CIFAR100, *SETS)}
"""The data sets that can be downloaded, by name."""
