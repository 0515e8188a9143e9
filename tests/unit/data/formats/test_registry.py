"""Telling formats apart, and that each gives the same set."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketvit.data.dataset import Split
from pocketvit.data.formats.registry import FORMATS, detect, find_format
from pocketvit.errors import InputError


def write_every_format(write, folder, train, test):
    """The same images in every format, by the format's name (and a note)."""
    pytest.importorskip("pyarrow")
    batches = write.cifar10_batches(train, test)
    (folder / "unpacked").mkdir()
    for name, content in batches.items():
        (folder / "unpacked" / name).write_bytes(content)
    for split, (images, labels) in (("train", train), ("test", test)):
        write.parquet(folder / "parquet" / f"{split}-00000-of-00001.parquet", images, labels)
    np.savez_compressed(
        folder / "set.npz",
        class_names=write.NAMES,
        train_images=train[0],
        train_labels=train[1],
        test_images=test[0],
        test_labels=test[1],
    )
    return {
        "folder": write.folder(folder / "pictures", {"train": train, "test": test}),
        "npz": folder / "set.npz",
        "parquet": folder / "parquet",
        "cifar": write.tar(folder / "cifar-10-python.tar.gz", batches),
        "cifar unpacked": folder / "unpacked",
    }


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32), num_train=st.integers(10, 20), num_test=st.integers(1, 5))
def test_every_format_gives_the_same_set(write, tmp_path_factory, seed, num_train, num_test):
    rng = np.random.default_rng(seed)
    sets = []
    for count in (num_train, num_test):
        labels = rng.permutation(np.arange(count) % 10)
        sets.append((rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), labels))
    prints = [Split(*content).fingerprint for content in sets]
    for name, path in write_every_format(write, tmp_path_factory.mktemp("set"), *sets).items():
        kind = find_format(name.partition(" ")[0])
        assert detect(path) == kind.name
        decoded = kind.read(path)
        assert [decoded.train.fingerprint, decoded.test.fingerprint] == prints, name
        assert decoded.class_names == write.NAMES, name
        if name != "folder":  # a folder gives the images class by class
            assert np.array_equal(decoded.train.images, sets[0][0]), name


def test_names_are_enough_to_detect(tmp_path, write):
    rng = np.random.default_rng(0)
    content = (rng.integers(0, 256, (10, 32, 32, 3), dtype=np.uint8), np.arange(10))
    for name, path in write_every_format(write, tmp_path, content, content).items():
        assert [known.name for known in FORMATS if known.matches(path)] == [name.partition(" ")[0]]


def test_a_class_with_test_images_only_is_refused_in_every_format(tmp_path, write):
    rng = np.random.default_rng(0)
    train, test = ((rng.integers(0, 256, (9, 32, 32, 3), dtype=np.uint8), np.arange(9) + first) for first in (0, 1))
    for name, path in write_every_format(write, tmp_path, train, test).items():
        why = (
            "label 'jay' is outside the 9 classes" if name == "folder" else "class jay has no training images; add some"
        )
        with pytest.raises(InputError, match=f"^{path}.*(8|jay).*: {why}"):
            find_format(name.partition(" ")[0]).read(path)


def test_classes_without_images_are_named_in_every_format(tmp_path, write):
    rng = np.random.default_rng(0)
    train, test = ((rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), np.arange(n)) for n in (9, 7))
    for name, path in write_every_format(write, tmp_path, train, test).items():
        notes = find_format(name.partition(" ")[0]).read(path).notes
        listed = () if name == "folder" else (f"{path} has no images of the class jay",)
        assert notes == (*listed, f"{path} has no test images of the classes hen, ibis"), name


def test_of_many_classes_without_images_the_first_are_named(tmp_path):
    names = [f"c{k:02}" for k in range(20)]
    images = np.zeros((2, 4, 4, 3), np.uint8)
    np.savez(tmp_path / "set.npz", images=images, labels=[0, 1], class_names=names)
    (note,) = find_format("npz").read(tmp_path / "set.npz").notes
    assert note.endswith("has no images of the classes c02, c03, c04, c05, c06, c07, c08, c09, c10, c11, c12, c13, …")


@pytest.mark.parametrize("make", ["nothing", "empty file", "empty folder", "text", "loose images"])
def test_unusable_paths_are_named(tmp_path, write, make):
    path = tmp_path / "data"
    message = "has an unknown format: expected .*parquet"
    if make == "nothing":
        message = "does not exist"
    elif make == "empty file":
        path = tmp_path / "data.npz"
        path.touch()
        message = "is empty"
    elif make == "empty folder":
        path.mkdir()
        message = "is an empty folder"
    elif make == "text":
        path.write_text("hello")
    else:
        message = (
            "contains images, but neither class folders nor labels.csv; give the folder above if this is one class"
        )
        path.mkdir()
        (path / "x.png").write_bytes(write.encode(np.zeros((4, 4, 3), np.uint8)))
    with pytest.raises(InputError, match=f"^{path} {message}"):
        detect(path)


def test_unknown_format_names_the_nearest():
    with pytest.raises(InputError, match=r"^unknown data format 'parket'; did you mean parquet\?$"):
        find_format("parket")
