"""The cache of decoded sets: mapped, atomic, rebuilt when torn."""

import errno
import os
import threading

import numpy as np
import pytest

from pocketvit.data.cache import entry_key, load_or_build
from pocketvit.data.dataset import Decoded, Split
from pocketvit.errors import InputError


def some_set(seed: int = 0, test: bool = True) -> Decoded:
    images = np.random.default_rng(seed).integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)
    split = Split(images, np.arange(20) % 2)
    return Decoded(split, split.take(np.arange(5)) if test else None, ("a", "b"), ("a note",))


def same(a: Decoded, b: Decoded) -> bool:
    splits = [(x, y) for x, y in ((a.train, b.train), (a.test, b.test)) if x is not None or y is not None]
    return (a.class_names, a.notes) == (b.class_names, b.notes) and all(
        np.array_equal(x.images, y.images) and np.array_equal(x.labels, y.labels) for x, y in splits
    )


def never() -> Decoded:
    raise AssertionError("decoded again")


@pytest.mark.parametrize("test", [True, False])
def test_second_time_is_mapped(tmp_path, test):
    first = load_or_build(tmp_path, "key", lambda: some_set(test=test))
    second = load_or_build(tmp_path, "key", never)
    assert same(first, some_set(test=test)) and same(second, first)
    assert isinstance(second.train.images, np.memmap)
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_writing_in_memory_does_not_reach_the_file(tmp_path):
    load_or_build(tmp_path, "key", some_set).train.images[:] = 0
    assert same(load_or_build(tmp_path, "key", never), some_set())


@pytest.mark.parametrize("name", ["train_images.npy", "test_labels.npy", "meta.json"])
@pytest.mark.parametrize("damage", ["shorter", "empty", "missing"])
def test_torn_entry_is_rebuilt(tmp_path, name, damage):
    load_or_build(tmp_path, "key", some_set)
    file = tmp_path / "key" / name
    if damage == "missing":
        file.unlink()
    else:
        os.truncate(file, 0 if damage == "empty" else file.stat().st_size - 1)
    assert same(load_or_build(tmp_path, "key", lambda: some_set(1)), some_set(1))
    assert same(load_or_build(tmp_path, "key", never), some_set(1))


def test_two_at_once(tmp_path):
    """Both decode; the second to finish finds an entry in place and uses it."""
    both_decoding = threading.Barrier(2)
    results = []

    def build() -> Decoded:
        both_decoding.wait(10)
        return some_set()

    threads = [threading.Thread(target=lambda: results.append(load_or_build(tmp_path, "key", build))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2 and all(same(result, some_set()) for result in results)
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_failed_write_leaves_nothing(tmp_path, monkeypatch, code):
    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fail)
        with pytest.raises(InputError, match=f"{os.strerror(code)}.*POCKETVIT_DATA"):
            load_or_build(tmp_path / "decoded", "key", some_set)
    assert list((tmp_path / "decoded").iterdir()) == []
    assert same(load_or_build(tmp_path / "decoded", "key", some_set), some_set())


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file/decoded cannot be written"):
        load_or_build(tmp_path / "file" / "decoded", "key", some_set)


def test_interrupted_build_leaves_nothing(tmp_path):
    def interrupt() -> Decoded:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_or_build(tmp_path, "key", interrupt)
    assert list(tmp_path.iterdir()) == []


def test_key_changes_with_whatever_changes_the_set(tmp_path):
    (tmp_path / "set").mkdir()
    file = tmp_path / "set" / "a.png"
    file.write_bytes(b"abc")
    os.utime(file, ns=(0, 1_000_000_000))

    def key(*options, root=tmp_path / "set") -> str:
        return entry_key(root, sorted(root.iterdir()), options)

    keys = [key("folder", None)]
    assert key("folder", None) == keys[0]
    keys += [key("folder", 32), key("npz", None)]
    os.utime(file, ns=(0, 1_000_000_001))
    keys.append(key("folder", None))
    file.write_bytes(b"abcd")
    os.utime(file, ns=(0, 1_000_000_001))
    keys.append(key("folder", None))
    file.rename(file.with_name("b.png"))
    keys.append(key("folder", None))
    (tmp_path / "set").rename(tmp_path / "other")
    keys.append(key("folder", None, root=tmp_path / "other"))
    assert len(set(keys)) == len(keys)


def test_link_that_leads_nowhere_is_named(tmp_path):
    (tmp_path / "x.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(InputError, match="x.png cannot be read: No such file"):
        entry_key(tmp_path, [tmp_path / "x.png"], ())
