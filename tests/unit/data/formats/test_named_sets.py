"""The files of MNIST, EMNIST, SVHN and STL-10 in their exact layouts, and files that lie about their content."""

import gzip
import io
import struct
import zlib

import numpy as np
import pytest
from named_sets import GRAY, LABELS, RNG, idx_bytes, write_idx, write_stl10, write_svhn
from scipy.io import savemat

from pocketvit.config import DataConfig
from pocketvit.data.formats import idx, stl10, svhn
from pocketvit.data.formats.registry import detect, find_format
from pocketvit.data.raw_splits import in_memory
from pocketvit.data.sources import load_dataset
from pocketvit.errors import InputError


def read(path):
    return find_format(detect(path)).read(path, DataConfig(), in_memory)


@pytest.mark.parametrize("pack", [True, False])
def test_mnist(tmp_path, pack):
    folder = write_idx(tmp_path / "m", GRAY, LABELS, pack=pack)
    assert detect(folder) == "idx" and len(idx.files(folder)) == 4
    decoded = read(folder)
    assert np.array_equal(decoded.train.images, np.repeat(GRAY[:-6, :, :, None], 3, axis=3))
    assert decoded.test.labels.tolist() == LABELS[-6:].tolist() and decoded.class_names == ("0", "1", "2")
    assert decoded.train.files[3].endswith(f"train-images-idx3-ubyte{'.gz' if pack else ''}, image 3")
    assert "in gray" in decoded.notes[0]


def test_names_beside_the_files(tmp_path):
    folder = write_idx(tmp_path / "m", GRAY, LABELS)
    (folder / "class_names.txt").write_text("T-shirt/top\nTrouser\n\nÄrmel\n")
    assert load_dataset(folder, cache_dir=tmp_path / "c").class_names == ("T-shirt/top", "Trouser", "Ärmel")
    (folder / "class_names.txt").write_text("only\none")
    with pytest.raises(InputError, match="label 2 is outside the 2 classes"):
        load_dataset(folder, cache_dir=tmp_path / "c")
    (folder / "class_names.txt").write_bytes(b"\xff")
    with pytest.raises(InputError, match="class_names.txt is not a list of names in UTF-8"):
        load_dataset(folder, cache_dir=tmp_path / "c")


def test_emnist_is_transposed_and_its_letters_count_from_one(tmp_path):
    labels = np.concatenate([np.arange(26), np.arange(26)]).astype(np.uint8)
    images = RNG.integers(0, 256, (52, 4, 4), dtype=np.uint8)
    decoded = read(write_idx(tmp_path / "e", images, labels + 1, "emnist-letters-", test="test"))
    assert decoded.class_names[:2] == ("a", "b") and decoded.test.labels.tolist() == [20, 21, 22, 23, 24, 25]
    assert np.array_equal(decoded.train.images[0, :, :, 0], images[0].T)
    balanced = read(write_idx(tmp_path / "b", images, labels, "emnist-balanced-", test="test"))
    assert len(balanced.class_names) == 47 and "".join(balanced.class_names[10:13]) == "ABC"
    assert "".join(balanced.class_names[36:]) == "abdefghnqrt"
    write_idx(tmp_path / "b", GRAY, LABELS)
    with pytest.raises(InputError, match="holds several sets: .*emnist-balanced-.*keep one in a folder"):
        read(tmp_path / "b")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("train-images", b"\0\0\x08\x03" + b"\xff" * 12 + b"x", "claims [0-9,]+ bytes, and has 17$"),
        (
            "train-images",
            gzip.compress(b"\0\0\x08\x03" + b"\0\0\x40\0" * 3),
            "claims [0-9,]+ bytes, and has [0-9]+ when",
        ),
        ("train-images", idx_bytes(GRAY[:24])[:-1], "claims 840 bytes|not as long as its head says: 840 bytes"),
        ("train-images", idx_bytes(GRAY[:24]) + b"x", "not as long as its head says: 840 bytes for 24 × 5 × 7"),
        ("train-images", gzip.compress(idx_bytes(GRAY[:24]))[:-9], "is truncated or corrupt"),
        ("train-images", gzip.compress(idx_bytes(GRAY[:24])) + b"more", "is truncated or corrupt|not as long"),
        ("train-images", b"", "is not an IDX file of images: it begins with nothing"),
        ("train-images", b"\0\0\x0d\x03" + bytes(12), "is not an IDX file of images: it begins with 00 00 0d 03"),
        ("train-labels", idx_bytes(LABELS[:23]), "has 24 images, but .* 23 labels"),
        ("train-labels", None, "train-images-idx3-ubyte.gz has no labels beside it"),
    ],
)
def test_broken_idx_files_end_in_one_line(tmp_path, name, content, words):
    folder = write_idx(tmp_path / "m", GRAY, LABELS)
    kind = "idx3" if name.endswith("images") else "idx1"
    (folder / f"{name}-{kind}-ubyte.gz").unlink()
    if content is not None:
        (folder / f"{name}-{kind}-ubyte").write_bytes(content)
    with pytest.raises(InputError, match=words) as found:
        read(folder)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("kind", [np.uint8, np.float64])
@pytest.mark.parametrize("pack", [True, False])
def test_svhn(tmp_path, pack, kind):
    pixels, labels = write_svhn(tmp_path / "s", pack=pack, kind=kind)
    assert detect(tmp_path / "s") == "svhn" and len(svhn.files(tmp_path / "s")) == 2
    decoded = read(tmp_path / "s")
    assert np.array_equal(decoded.train.images, pixels.transpose(3, 0, 1, 2))
    assert decoded.test.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]
    assert decoded.class_names == tuple("0123456789")


def mat_bytes(**arrays):
    stream = io.BytesIO()
    savemat(stream, arrays)
    return stream.getvalue()


X, Y = RNG.integers(0, 256, (32, 32, 3, 4), dtype=np.uint8), np.ones((4, 1), np.uint8)
WHOLE = mat_bytes(X=X, y=Y)
BOMB = WHOLE[:128] + struct.pack("<II", 15, len(zlib.compress(bytes(2**20)))) + zlib.compress(bytes(2**20))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is truncated or corrupt: it has not the head of a file of MATLAB 5"),
        (WHOLE[:-50], "is truncated or corrupt"),
        (WHOLE[:132] + b"\xff\xff\xff\x7f" + WHOLE[136:], "claims 2,147,483,647 bytes, more than there are"),
        (
            WHOLE.replace(struct.pack("<4i", 32, 32, 3, 4), struct.pack("<4i", 32, 2**30, 3, 4)),
            "corrupt: cannot reshape",
        ),
        (mat_bytes(X=X), "has no array y"),
        (mat_bytes(X=X.astype(float), y=Y), "X is float64"),
        (mat_bytes(X=X, y=Y[:3]), r"y has the shape \(3, 1\), but there are 4 images"),
        (mat_bytes(X=X, y=Y * 11), "y holds other labels than 1 to 10"),
        (mat_bytes(X=X, y=Y * 1.5), "y holds other labels than 1 to 10"),
        (mat_bytes(X=X * 1j, y=Y), "its array 'X' does not hold real numbers"),
        (mat_bytes(X=np.array(["a", Y], dtype=object), y=Y), "its array 'X' does not hold real numbers|corrupt"),
        (BOMB, "is truncated or corrupt"),
    ],
)
def test_broken_mat_files_end_in_one_line(tmp_path, content, words):
    write_svhn(tmp_path / "s")
    (tmp_path / "s" / "train_32x32.mat").write_bytes(content)
    with pytest.raises(InputError, match=f"train_32x32.mat.* {words}|train_32x32.mat.*{words}") as found:
        read(tmp_path / "s")
    assert "\n" not in str(found.value)


def test_what_unpacks_to_too_much_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(svhn, "MOST_BYTES", 1000)
    (tmp_path / "train_32x32.mat").write_bytes(BOMB)
    with pytest.raises(InputError, match="it unpacks to more than 1,000 bytes"):
        read(tmp_path)


@pytest.mark.parametrize("inner", ["", "stl10_binary"])
def test_stl10(tmp_path, inner):
    images = write_stl10(tmp_path / "s" / inner)
    assert detect(tmp_path / "s") == "stl10" and len(stl10.files(tmp_path / "s")) == 5
    decoded = read(tmp_path / "s")
    assert np.array_equal(decoded.train.images, images) and decoded.test.labels.tolist() == list(range(10))
    assert decoded.class_names[7] == "monkey"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("train_X.bin", bytes(27_648 * 10 - 1), "has 276,479 bytes, not 10 images of 96 × 96 pixels"),
        ("test_y.bin", bytes(range(1, 10)), "has 276,480 bytes, not 9 images"),
        ("test_y.bin", b"\0" + bytes(range(2, 11)), "test_y.bin, label 0: label -1 is outside the 10 classes"),
        ("train_y.bin", None, "train_y.bin cannot be read: No such file"),
    ],
)
def test_broken_stl10_files_end_in_one_line(tmp_path, name, content, words):
    write_stl10(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        read(tmp_path)
