"""The official CIFAR archives, whole, broken and malicious."""

import _codecs
import codecs
import io
import os
import pickle
import shutil

import numpy as np
import pytest

from pocketvit.config import DataConfig
from pocketvit.data.formats import cifar
from pocketvit.errors import InputError


@pytest.fixture(scope="module")
def batches(write, synthetic_set) -> dict[str, bytes]:
    return write.cifar10_batches(synthetic_set.train, synthetic_set.test)


@pytest.fixture(scope="module")
def archive(write, batches, tmp_path_factory):
    return write.tar(tmp_path_factory.mktemp("cifar") / "cifar-10-python.tar.gz", batches)


def unpack(archive, folder):
    shutil.unpack_archive(archive, folder, filter="data")
    return folder / "cifar-10-batches-py"


def assert_is(decoded, synthetic_set, names):
    for split, (images, labels) in ((decoded.train, synthetic_set.train), (decoded.test, synthetic_set.test)):
        assert np.array_equal(split.images, images) and np.array_equal(split.labels, labels)
        assert split.images.flags["C_CONTIGUOUS"]
    assert decoded.class_names == names and decoded.notes == ()


def test_archive_and_folder_are_the_same(archive, synthetic_set, write, tmp_path):
    assert_is(cifar.read(archive), synthetic_set, write.NAMES)
    folder = unpack(archive, tmp_path)
    for path in (folder, tmp_path):  # the folder itself, and the one it was unpacked in
        assert cifar.matches(path) and len(cifar.files(path)) == 7
        assert_is(cifar.read(path), synthetic_set, write.NAMES)


def test_folder_that_holds_the_archive(archive, synthetic_set, write):
    assert cifar.matches(archive.parent) and cifar.files(archive.parent) == [archive]
    assert_is(cifar.read(archive.parent), synthetic_set, write.NAMES)


def test_cifar100(write, synthetic_set, tmp_path):
    contents = {"meta": write.python2_pickle({"fine_label_names": list(write.NAMES), "coarse_label_names": ["x"]})}
    for name, (images, labels) in (("train", synthetic_set.train), ("test", synthetic_set.test)):
        data = np.ascontiguousarray(images.transpose(0, 3, 1, 2).reshape(-1, 3072))
        fields = {"data": data, "fine_labels": labels.tolist(), "coarse_labels": [0] * len(labels)}
        contents[name] = write.python2_pickle(fields)
    path = write.tar(tmp_path / "cifar-100-python.tar.gz", contents, "cifar-100-python")
    assert_is(cifar.read(path), synthetic_set, write.NAMES)
    for column in ("coarse_label", "coarse_labels"):
        coarse = cifar.read(path, DataConfig(label_column=column))
        assert coarse.class_names == ("x",) and not coarse.train.labels.any()
    with pytest.raises(InputError, match="has no entry 'finest_label_names'"):
        cifar.read(path, DataConfig(label_column="finest_label"))


def test_a_class_name_that_stands_twice_is_refused(write, synthetic_set, tmp_path):
    batches = write.cifar10_batches(synthetic_set.train, synthetic_set.test, ("ant", "ant", *write.NAMES[2:]))
    with pytest.raises(InputError, match="class_names has 'ant' 2 times: give every class a different name"):
        cifar.read(write.tar(tmp_path / "cifar-10-python.tar.gz", batches))


def test_both_sets_in_one_folder_must_be_named(archive, tmp_path):
    shutil.copy(archive, tmp_path)
    shutil.copy(archive, tmp_path / "cifar-100-python.tar.gz")
    with pytest.raises(InputError, match="contains both cifar-10-python.tar.gz and cifar-100-python.tar.gz"):
        cifar.read(tmp_path)


class Attack:
    """Unpickles to a call of a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("function", [os.system, eval, getattr, np.load, np.fromfile])
def test_malicious_pickle_is_refused_and_not_run(archive, tmp_path, function, protocol):
    folder = unpack(archive, tmp_path)
    witness = tmp_path / "it-ran"
    attack = {"data": Attack(function, f"open({str(witness)!r}, 'w')"), "labels": []}
    (folder / "data_batch_3").write_bytes(pickle.dumps(attack, protocol))
    with pytest.raises(InputError, match="data_batch_3: its pickle asks for .*only NumPy arrays are allowed: refused"):
        cifar.read(folder)
    assert not witness.exists()


@pytest.mark.parametrize("protocol", range(5))
def test_batches_pickled_by_python_3(archive, synthetic_set, write, tmp_path, protocol):
    folder = unpack(archive, tmp_path)
    for file in folder.iterdir():
        content = pickle.loads(file.read_bytes(), encoding="bytes")
        file.write_bytes(pickle.dumps(content, protocol))
    assert_is(cifar.read(folder), synthetic_set, write.NAMES)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (_codecs.encode, ("x", "utf-8")),
        (_codecs.encode, ("x", "rot13")),
        (_codecs.encode, (b"x", "zlib")),
        (_codecs.encode, (b"x", "latin1")),
        (_codecs.encode, ("x",)),
        (_codecs.encode, ("€", "latin1")),
        (_codecs.encode, ("x", "latin1", "ignore")),
        (_codecs.decode, (b"x", "latin1")),
        (_codecs.lookup, ("latin1",)),
        (codecs.open, ("it-ran", "w")),
    ],
)
def test_of_codecs_only_latin1_bytes_are_allowed(archive, tmp_path, monkeypatch, function, arguments, protocol):
    monkeypatch.chdir(tmp_path)
    folder = unpack(archive, tmp_path)
    (folder / "data_batch_3").write_bytes(pickle.dumps({"data": Attack(function, *arguments), "labels": []}, protocol))
    with pytest.raises(InputError, match="data_batch_3(: its pickle asks for .*: refused| is truncated or corrupt)"):
        cifar.read(folder)
    assert not (tmp_path / "it-ran").exists()


def test_a_text_that_is_encoded_often_is_held_once():
    program = b"c_codecs\nencode\nq\0X\6\0\0\0latin1q\1X\3\0\0\0\xc3\xa9aq\2]" + 2 * b"h\0h\2h\1\x86Ra" + b"."
    first, second = cifar._unpickle(program, "x")
    assert first is second and first == b"\xe9a"


OBJECTS = np.dtype([("a", "O")])


class Pretends(Attack):
    """Unpickles to a call of a function, whose result is then told a state."""

    def __init__(self, function, arguments, state):
        self.call = (function, arguments, state)


HIDING = (3, "|", None, ("a",), {"a": (np.dtype("i8"), 0)}, 8, 1, 27)
SMUGGLED = Pretends(np.dtype, ("V8", False, True), OBJECTS.__reduce__()[2])
REBUILT = (np.empty(0, np.uint8).__reduce__()[0], (np.ndarray, (0,), b"b"))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (Attack(np.ndarray, (2,), "O", b"A" * 16), "calls numpy.ndarray"),
        (Attack(np.ndarray, (2,), np.dtype("O"), b"A" * 16), "array of 'O8'"),
        (Attack(np.ndarray, (-2,), np.dtype("u1"), b"A" * 16), "calls numpy.ndarray"),
        (Pretends(*REBUILT, (1, (2,), SMUGGLED, False, b"A" * 16)), "array of 'V8'"),
        (Pretends(*REBUILT, (1, (2,), Pretends(np.dtype, ("i8",), HIDING), False, b"A" * 16)), "array with fields"),
        (Pretends(*REBUILT, (1, (2,), np.dtype("u1"), False, ["A", "B"])), "array of more than integers"),
    ],
)
def test_no_array_is_made_of_arbitrary_pointers(archive, tmp_path, attack, message, protocol):
    folder = unpack(archive, tmp_path)
    (folder / "data_batch_3").write_bytes(pickle.dumps({"data": attack, "labels": attack}, protocol))
    with pytest.raises(InputError, match=f"data_batch_3: its pickle .*{message}.*: refused"):
        cifar.read(folder)


@pytest.mark.parametrize("shape", [(-1, -3072), (2, 3072), (2**62, 3072), (1 << 70,)])
def test_shape_must_fit_the_bytes(archive, tmp_path, shape):
    folder = unpack(archive, tmp_path)
    attack = Pretends(*REBUILT, (1, shape, np.dtype("u1"), False, bytes(3072)))
    (folder / "data_batch_3").write_bytes(pickle.dumps({"data": attack, "labels": [0]}, 2))
    with pytest.raises(InputError, match="data_batch_3 is truncated or corrupt"):
        cifar.read(folder)


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("kind", ["<i8", ">i4", "u1"])
def test_arrays_of_any_order_are_read(kind, order):
    content = np.asarray(np.arange(6).reshape(2, 3), kind, order=order)
    found = cifar.ArrayUnpickler(io.BytesIO(pickle.dumps(content, 4)), encoding="bytes").load().array
    assert found.dtype == content.dtype and np.array_equal(found, content)


@pytest.mark.parametrize("names", [np.arange(3), "abc", [1, 2], {"a": 1}])
def test_class_names_must_be_names(archive, tmp_path, names):
    folder = unpack(archive, tmp_path)
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}, 2))
    with pytest.raises(InputError, match=r"batches.meta: its label_names are not a list of names"):
        cifar.read(folder)


def test_attribute_of_an_allowed_name_is_refused(archive, tmp_path):
    folder = unpack(archive, tmp_path)
    (folder / "test_batch").write_bytes(b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.")  # numpy: ndarray.tofile
    with pytest.raises(InputError, match=r"test_batch: its pickle asks for numpy\.ndarray\.tofile"):
        cifar.read(folder)


def test_missing_batch(archive, tmp_path):
    folder = unpack(archive, tmp_path)
    (folder / "data_batch_4").unlink()
    with pytest.raises(InputError, match="is not a complete CIFAR data set: data_batch_4 is missing"):
        cifar.read(folder)


def test_archive_of_something_else(write, tmp_path):
    path = write.tar(tmp_path / "other.tar.gz", {"readme": b"hello"})
    with pytest.raises(InputError, match="other.tar.gz contains no CIFAR batches"):
        cifar.read(path)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.999])
def test_truncated_archive_says_the_byte(archive, tmp_path, kept):
    content = archive.read_bytes()
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(InputError, match=r"tar.gz is truncated or corrupt at byte [\d,]+ of [\d,]+"):
        cifar.read(path)


def test_corrupt_archive_says_the_byte(archive, tmp_path):
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 255
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"tar.gz is truncated or corrupt at byte [\d,]+ of [\d,]+: .*CRC"):
        cifar.read(path)


def test_truncated_batch_says_the_byte(archive, tmp_path):
    folder = unpack(archive, tmp_path)
    content = (folder / "data_batch_2").read_bytes()
    (folder / "data_batch_2").write_bytes(content[:9000])
    with pytest.raises(InputError, match="data_batch_2 is truncated or corrupt near byte [0-9,]+ of 9,000"):
        cifar.read(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": [0]}, "has no entry 'data'"),
        ({"data": np.zeros((1, 3072), np.uint8)}, "has no entry 'labels'"),
        ({"data": np.zeros((1, 3072), np.float32), "labels": [0]}, "array of 'f4', but only integers"),
        ({"data": np.zeros((1, 3072), np.int16), "labels": [0]}, "not uint8 pixels"),
        ({"data": np.zeros((1, 3000), np.uint8), "labels": [0]}, "not uint8 pixels"),
        ({"data": [1, 2], "labels": [0]}, "not uint8 pixels"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": [[0]]}, "its labels are not a list of integers"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": 0}, "its labels are not a list of integers"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}, "2 images but labels of shape"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 10]}, "row 1: label 10 is outside the 10 classes"),
        ([1, 2], "has no entry 'data'"),
    ],
)
def test_wrong_content_is_named(archive, write, tmp_path, fields, message):
    folder = unpack(archive, tmp_path)
    (folder / "data_batch_1").write_bytes(write.python2_pickle(fields))
    with pytest.raises(InputError, match=f"data_batch_1.*{message}"):
        cifar.read(folder)
