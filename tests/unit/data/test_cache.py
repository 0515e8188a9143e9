"""The cache of decoded sets: mapped, atomic, rebuilt when torn."""

import dataclasses
import errno
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from bounded import refusal

from pocketvit.data.cache import LOCK, WRITING, entry_key, load_or_build
from pocketvit.data.dataset import Decoded, Split
from pocketvit.data.raw_splits import Store, in_memory
from pocketvit.errors import InputError


def some_set(store: Store = in_memory, seed: int = 0, test: bool = True) -> Decoded:
    images = np.random.default_rng(seed).integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)
    labels = np.arange(20) % 2
    train, held = (
        Split(store(split, iter(images[:count]), count), labels[:count])
        for split, count in (("train", 20), ("test", 5))
    )
    return Decoded(train, held if test else None, ("a", "b"), ("a note",))


def same(a: Decoded, b: Decoded) -> bool:
    splits = [(x, y) for x, y in ((a.train, b.train), (a.test, b.test)) if x is not None or y is not None]
    return (a.class_names, a.notes) == (b.class_names, b.notes) and all(
        np.array_equal(x.images, y.images) and np.array_equal(x.labels, y.labels) for x, y in splits
    )


def never(store: Store) -> Decoded:
    raise AssertionError("decoded again")


@pytest.mark.parametrize("test", [True, False])
def test_second_time_is_mapped(tmp_path, test):
    first = load_or_build(tmp_path, "key", lambda store: some_set(store, test=test))
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
    assert same(load_or_build(tmp_path, "key", lambda store: some_set(store, 1)), some_set(seed=1))
    assert same(load_or_build(tmp_path, "key", never), some_set(seed=1))


@pytest.mark.parametrize("name", ["train_images.npy", "train_labels.npy", "test_images.npy"])
@pytest.mark.parametrize("place", [4, 30, 200], ids=["version", "header", "content"])
def test_damaged_bytes_are_noticed_and_said(tmp_path, name, place):
    load_or_build(tmp_path, "key", some_set)
    with open(tmp_path / "key" / name, "r+b") as file:
        file.seek(place)
        file.write(b"\x05\xff{(" * 4)
    said = []
    assert same(load_or_build(tmp_path, "key", some_set, said.append), some_set())
    assert said == [f"{tmp_path / 'key'}: the cached images are damaged; decoding them again"]
    assert same(load_or_build(tmp_path, "key", never), some_set())


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [("test_names.npy", b"a-3", b"a-4"), ("meta.json", b'"b"', b'"c"'), ("meta.json", b"a note", b"a nose")],
)
def test_other_names_are_noticed_and_said(tmp_path, name, old, new):
    def named(store: Store) -> Decoded:
        decoded = some_set(store)
        test = dataclasses.replace(decoded.test, names=np.array([b"a-%d" % i for i in range(5)]))
        return dataclasses.replace(decoded, test=test)

    load_or_build(tmp_path, "key", named)
    file = tmp_path / "key" / name
    content = file.read_bytes()
    assert content.count(old) == 1
    file.write_bytes(content.replace(old, new))
    said: list[str] = []
    again = load_or_build(tmp_path, "key", named, said.append)
    assert len(said) == 1 and again.class_names == ("a", "b") and again.test.files[3] == "a-3"
    assert load_or_build(tmp_path, "key", never).test.files[3] == "a-3"


def test_a_pipe_in_an_entry_is_damage(tmp_path):
    imports = "import numpy as np\nfrom pocketvit.data.cache import load_or_build"
    code = """
from pocketvit.data.dataset import Decoded, Split
images = np.zeros((2, 4, 4, 3), np.uint8)
decoded = Decoded(Split(images, np.arange(2)), None, ("a", "b"), ())
load_or_build(pathlib.Path(sys.argv[1]), "key", lambda store: decoded, print)
"""
    for name in ("meta.json", "train_images.npy", "train_labels.npy"):
        load_or_build(tmp_path, "key", some_set)
        (tmp_path / "key" / name).unlink()
        os.mkfifo(tmp_path / "key" / name)
        said = refusal(code, tmp_path, imports=imports, timeout_s=30)
        assert said == f"{tmp_path}/key: the cached images are damaged; decoding them again"


@pytest.mark.parametrize("torn", [False, True])
def test_several_at_once(tmp_path, torn):
    """All decode; those that finish later find an entry in place and use it, whether or not a torn one was there."""
    if torn:
        load_or_build(tmp_path, "key", some_set)
        (tmp_path / "key" / "meta.json").unlink()
    all_decoding = threading.Barrier(8)

    def build(store: Store) -> Decoded:
        decoded = some_set(store)
        all_decoding.wait(60)
        return decoded

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda _: load_or_build(tmp_path, "key", build), range(8)))
    assert all(same(result, some_set()) for result in results)
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("written_before", [0, 2], ids=["images", "labels"])
def test_failed_write_leaves_nothing(tmp_path, monkeypatch, code, written_before):
    writes = itertools.count()

    def fail(descriptor: int) -> None:
        if next(writes) >= written_before:
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


def test_a_set_in_memory_is_stored_as_well(tmp_path):
    load_or_build(tmp_path, "key", lambda store: some_set())
    assert same(load_or_build(tmp_path, "key", never), some_set())


def test_files_are_those_of_numpy(tmp_path):
    load_or_build(tmp_path, "key", some_set)
    np.save(tmp_path / "images.npy", some_set().train.images)
    np.save(tmp_path / "labels.npy", some_set().train.labels)
    for name in ("images.npy", "labels.npy"):
        assert (tmp_path / "key" / f"train_{name}").read_bytes() == (tmp_path / name).read_bytes()


@pytest.mark.parametrize("split", ["train", "test"])
def test_interrupted_build_leaves_nothing(tmp_path, split):
    def interrupt(store: Store) -> Decoded:
        def broken_off(name: str, images: Iterable[np.ndarray], count: int) -> np.ndarray:
            return store(name, cut_short(images) if name == split else images, count)

        return some_set(broken_off)

    def cut_short(images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        yield from itertools.islice(images, 3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_or_build(tmp_path, "key", interrupt)
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, sys
from pathlib import Path
import numpy as np
from pocketvit.data.cache import load_or_build

def images():
    yield from np.zeros((1000, 32, 32, 3), np.uint8)
    os.kill(os.getpid(), 9)

load_or_build(Path(sys.argv[1]), "key", lambda store: store("train", images(), 1001))
"""


@pytest.mark.parametrize("where", ["here", "on another machine", "without locks"])
def test_what_a_killed_process_left_is_never_used_and_removed(tmp_path, where):
    """At once where its lock tells that it is gone, else a day later."""
    assert subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False).returncode == -9
    (left,) = tmp_path.iterdir()
    if where != "here":
        (left / "lock").write_text("another start\n" if where == "on another machine" else "")
    assert same(load_or_build(tmp_path, "key", some_set), some_set())
    if where != "here":
        assert left.exists()
        for path in (left, *left.rglob("*")):
            os.utime(path, (time.time() - 90_000,) * 2)
        load_or_build(tmp_path, "key", never)
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_a_pipe_in_place_of_a_lock_blocks_nothing(tmp_path):
    (tmp_path / f"{WRITING}some").mkdir()
    os.mkfifo(tmp_path / f"{WRITING}some" / LOCK)
    assert same(load_or_build(tmp_path, "key", some_set), some_set())


def test_what_another_process_is_writing_is_left_alone(tmp_path):
    def build(store: Store) -> Decoded:
        load_or_build(tmp_path, "other", some_set)
        return some_set(store)

    assert same(load_or_build(tmp_path, "key", build), some_set())
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["key", "other"]


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


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("meta.json", {"class_names": []}),
        ("meta.json", {"class_names": ["a"]}),
        ("meta.json", {"class_names": [1, None]}),
        ("meta.json", {"notes": [["a"]]}),
        ("train_names.npy", np.array([["a"]])),
        ("train_names.npy", np.arange(20)[None]),
    ],
    ids=lambda value: str(value)[:40],
)
def test_entry_of_other_types_is_rebuilt(tmp_path, name, content):
    first = load_or_build(tmp_path, "key", some_set)
    if name == "meta.json":
        meta = json.loads((tmp_path / "key" / name).read_text())
        (tmp_path / "key" / name).write_text(json.dumps(meta | content))
    else:
        np.save(tmp_path / "key" / name, content)
    again = load_or_build(tmp_path, "key", some_set)
    assert same(again, first) and again.train.names is None
