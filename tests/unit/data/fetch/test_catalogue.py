"""Fetching a known set: offers in order, checked before it gets its name."""

import dataclasses
import hashlib
import re
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import pytest

from pocketvit import lock
from pocketvit.data import sources
from pocketvit.data.dataset import Decoded, Split
from pocketvit.data.fetch import catalogue as remote
from pocketvit.data.fetch.catalogue import Offer, RemoteFile, RemoteSet
from pocketvit.errors import InputError


@pytest.fixture
def toy(server, write, synthetic_set, tmp_path, monkeypatch):
    """A known set, "toy", that the server offers as parquet and as an archive."""
    for split, (images, labels) in (("train", synthetic_set.train), ("test", synthetic_set.test)):
        file = write.parquet(tmp_path / f"{split}.parquet", images, labels)
        server.files[f"/{split}-00000-of-00001.parquet"] = file.read_bytes()
    batches = write.cifar10_batches(synthetic_set.train, synthetic_set.test)
    archive = write.tar(tmp_path / "cifar-10-python.tar.gz", batches).read_bytes()
    server.files["/cifar-10-python.tar.gz"] = archive
    md5 = hashlib.md5(archive).hexdigest()
    real = [Split(*part).fingerprint for part in (synthetic_set.train, synthetic_set.test)]
    toy = RemoteSet(
        name="toy",
        description="noise",
        size="1 MB",
        offers=(
            Offer(
                "parquet",
                tuple(RemoteFile(server.url(f"/{split}-00000-of-00001.parquet")) for split in ("train", "test")),
                needs_pyarrow=True,
            ),
            Offer("archive", (RemoteFile(server.url("/cifar-10-python.tar.gz"), f"md5:{md5}"),)),
        ),
        is_real=lambda decoded: [decoded.train.fingerprint, decoded.test.fingerprint] == real,
    )
    monkeypatch.setitem(remote.REMOTE_SETS, "toy", toy)
    return toy


@pytest.fixture
def get(tmp_path):
    return lambda **options: sources.get("toy", data_dir=tmp_path / "home", **options)


def asked(server) -> list[str]:
    return [path for path, _ in server.asked]


def test_parquet_comes_first(toy, server, get, tmp_path, synthetic_set):
    told = []
    folder = get(progress=lambda done, total: told.append((done, total)))
    assert asked(server) == ["/train-00000-of-00001.parquet", "/test-00000-of-00001.parquet"]
    assert sorted(entry.name for entry in folder.iterdir()) == [path[1:] for path in sorted(asked(server))]
    assert [entry.name for entry in folder.parent.iterdir()] == ["toy"]
    sizes = [len(server.files[path]) for path in asked(server)]
    assert {total for _, total in told} == set(sizes) and told[-1] == (sizes[1], sizes[1])

    decoded = list((tmp_path / "home" / "decoded").iterdir())
    dataset = sources.load_dataset("toy", cache_dir=tmp_path / "home")
    assert dataset.name == "toy" and np.array_equal(dataset.test.images, synthetic_set.test[0])
    assert len(decoded) == 1 and list((tmp_path / "home" / "decoded").iterdir()) == decoded  # so not decoded again


def test_what_is_there_is_not_fetched_again(toy, server, get):
    assert get() == get()
    assert len(server.asked) == 2


def test_a_folder_in_the_home_folder(toy, server, tmp_path, monkeypatch):
    """Shells do not expand --data-dir=~/sets."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert sources.get("toy", data_dir=Path("~/sets")) == tmp_path / "sets" / "fetched" / "toy"


def test_archive_when_the_hub_has_no_parquet(toy, server, get):
    del server.files["/test-00000-of-00001.parquet"]
    assert [file.name for file in get().iterdir()] == ["cifar-10-python.tar.gz"]


def test_archive_without_pyarrow(toy, server, get, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    get()
    assert asked(server) == ["/cifar-10-python.tar.gz"]


def test_corrupt_parquet_falls_back_to_the_archive(toy, server, get):
    whole = server.files["/train-00000-of-00001.parquet"]
    server.files["/train-00000-of-00001.parquet"] = whole[:1000] + bytes(1000) + whole[2000:]
    assert [file.name for file in get().iterdir()] == ["cifar-10-python.tar.gz"]


def test_parquet_of_another_checksum_is_not_even_opened(toy, server, get, monkeypatch):
    files = [dataclasses.replace(file, checksum=f"sha256:{'0' * 64}") for file in toy.offers[0].files]
    offers = (dataclasses.replace(toy.offers[0], files=tuple(files)), toy.offers[1])
    monkeypatch.setitem(remote.REMOTE_SETS, "toy", dataclasses.replace(toy, offers=offers))
    assert [file.name for file in get().iterdir()] == ["cifar-10-python.tar.gz"]
    assert asked(server) == ["/train-00000-of-00001.parquet", "/cifar-10-python.tar.gz"]


def test_other_images_are_refused(toy, server, get, monkeypatch, tmp_path):
    monkeypatch.setitem(remote.REMOTE_SETS, "toy", dataclasses.replace(toy, is_real=lambda decoded: False))
    with pytest.raises(InputError, match="toy cannot be downloaded. parquet: the downloaded images are not those of"):
        get()
    assert not (tmp_path / "home" / "fetched" / "toy").exists()
    monkeypatch.setitem(remote.REMOTE_SETS, "toy", toy)
    get()
    assert len(server.asked) == 3 + 2  # what was refused was thrown away, and fetched anew


def test_interrupted_fetch_goes_on(toy, server, get):
    def interrupt(done: int, total: int) -> None:
        if len(server.asked) == 2 and done > 1000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(progress=interrupt)
    get()
    assert asked(server) == [f"/{split}-00000-of-00001.parquet" for split in ("train", "test", "test")]


def test_of_two_at_once_one_fetches_and_the_other_waits_for_it(toy, server, get):
    seconds: list[Future[Path]] = []

    def start_second(done: int, total: int) -> None:
        if not seconds:
            seconds.append(threads.submit(get))
            wait(seconds, timeout=0.3)

    with ThreadPoolExecutor(1) as threads:
        folder = get(progress=start_second)
        assert seconds[0].result() == folder
    assert asked(server) == ["/train-00000-of-00001.parquet", "/test-00000-of-00001.parquet"]


def test_a_fetch_that_takes_long_is_not_waited_for_to_its_end(toy, server, get, monkeypatch, tmp_path):
    monkeypatch.setattr(lock, "WAIT_S", 0.0)

    def fetch_again(done: int, total: int) -> None:
        with pytest.raises(
            InputError, match=f"another process is downloading toy to {tmp_path}/home/fetched/.toy; wait"
        ):
            get()

    get(progress=fetch_again)
    assert len(server.asked) == 2


def test_known_sets_have_published_addresses():
    for name in ("cifar10", "cifar100"):
        known = remote.REMOTE_SETS[name]
        parquet, archive = known.offers
        assert [file.name for file in parquet.files] == [f"{s}-00000-of-00001.parquet" for s in ("train", "test")]
        assert parquet.needs_pyarrow and all(f"/{name}/" in file.url for file in parquet.files)
        for file in parquet.files:  # of one version, as a checksum of what may change would refuse every later one
            assert re.fullmatch(r"sha256:[0-9a-f]{64}", file.checksum)
            assert re.search(r"/resolve/[0-9a-f]{40}/", file.url)
        assert archive.files[0].checksum.startswith("md5:")


def test_cifar100_is_told_by_counts_names_and_statistics(monkeypatch):
    images = np.zeros((50_000, 1, 1, 3), np.uint8)
    labels = np.arange(50_000) % 100
    names = tuple(remote.CIFAR100_CLASSES.split())
    decoded = Decoded(Split(images, labels), Split(images[:10_000], labels[:10_000]), names)
    is_real = remote.REMOTE_SETS["cifar100"].is_real
    assert not is_real(decoded)
    assert not is_real(dataclasses.replace(decoded, test=None))

    def stats(train_sums, test_sums):
        """Stands in for `channel_stats`: the sums of a channel are whole numbers."""
        made = {
            50_000: (train_sums / (255 * 50_000 * 32 * 32), remote.CIFAR100_TRAIN_STATS[1]),
            10_000: (test_sums / (255 * 10_000 * 32 * 32), remote.CIFAR100_TEST_STATS[1]),
        }
        monkeypatch.setattr(remote, "channel_stats", lambda images: made[len(images)])

    train = np.array([6_620_373_279, 6_352_382_090, 5_756_623_363])
    test = np.rint(np.array(remote.CIFAR100_TEST_STATS[0]) * 255 * 10_000 * 32 * 32)
    stats(train, test)
    assert is_real(decoded)
    assert not is_real(dataclasses.replace(decoded, test=decoded.train))
    assert not is_real(dataclasses.replace(decoded, class_names=names[::-1]))
    for one in np.eye(3):
        stats(train + one, test)
        assert not is_real(decoded), "other training images"
        stats(train, test + one)
        assert not is_real(decoded), "other test images"


def test_cifar100s_published_means_are_those_of_whole_pixels():
    """A mistyped digit would make a sum of pixels no whole number."""
    for (mean, _), count in ((remote.CIFAR100_TRAIN_STATS, 50_000), (remote.CIFAR100_TEST_STATS, 10_000)):
        for value in mean:
            total = value * 255 * count * 32 * 32
            assert abs(total - round(total)) < 1e-5
