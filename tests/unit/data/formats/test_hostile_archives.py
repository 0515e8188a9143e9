"""Small files that would unpack to gigabytes, and members that are not what they are called."""

import gzip
import io
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
from bounded import refusal

from pocketvit.data.formats import cifar, npz, parquet
from pocketvit.errors import InputError

READ = "READER.read(pathlib.Path(sys.argv[1]))"
IMPORTS = "from pocketvit.data.formats import cifar, npz"


def array_bytes(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array)
    return stream.getvalue()


def write_npz(path, kind=zipfile.ZIP_DEFLATED, **members):
    """Arrays, or a count of zero bytes, or bytes that are no array."""
    with zipfile.ZipFile(path, "w", kind, compresslevel=1) as archive:
        for name, member in members.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                if isinstance(member, int):
                    header = {"descr": "|u1", "fortran_order": False, "shape": (member // 2**20, 2**10, 2**10)}
                    np.lib.format.write_array_header_1_0(file, header)
                    for _ in range(member // 2**20):
                        file.write(bytes(2**20))
                else:
                    file.write(member if isinstance(member, bytes) else array_bytes(member))
    return path


TWO = {"images": np.zeros((2, 4, 4), np.uint8), "labels": np.array([0, 1])}


def test_array_that_is_left_aside_is_not_unpacked(tmp_path):
    path = write_npz(tmp_path / "x.npz", **TWO, thumbnails=80 * 2**20)
    assert path.stat().st_size < 1_000_000
    print_notes = "print(npz.read(pathlib.Path(sys.argv[1])).notes)"
    assert "1 array is ignored, such as thumbnails" in refusal(print_notes, path, imports=IMPORTS, mib=60)


def test_array_of_the_set_that_unpacks_too_far_is_refused(tmp_path):
    path = write_npz(tmp_path / "x.npz", images=80 * 2**20, labels=np.arange(80))
    said = refusal(READ.replace("READER", "npz"), path, imports=IMPORTS, mib=60)
    assert "images would unpack from" in said and f"to {80 * 2**20 + 128:,}" in said


@pytest.mark.parametrize(
    ("members", "says"),
    [
        (TWO | {"labels": b"no array"}, "is corrupt or contains pickled objects: the magic string is not correct"),
        (TWO | {"labels": b""}, "is corrupt"),
        (
            TWO | {"images": array_bytes(np.zeros((2, 4, 4), np.uint8)).replace(b"(2, 4, 4)", b"(9**9,4,)")},
            "is corrupt",
        ),
        (TWO | {"labels": np.array([0, 2**63], np.uint64)}, r"label 9223372036854775808, but only 2 different labels"),
        (TWO | {"labels": np.array([0, 2**64 - 1], np.uint64), "class_names": np.array(["a", "b"])}, "outside the 2"),
    ],
)
def test_member_that_is_no_array_of_the_set_is_refused(tmp_path, members, says):
    with pytest.raises(InputError, match=says):
        npz.read(write_npz(tmp_path / "x.npz", **members))


def test_method_that_numpy_does_not_write_is_refused(tmp_path):
    with pytest.raises(InputError, match="is compressed in a way that NumPy never uses"):
        npz.read(write_npz(tmp_path / "x.npz", zipfile.ZIP_LZMA, **TWO))


def test_splits_whose_labels_differ_in_type_keep_whole_numbers(tmp_path):
    images, labels = np.zeros((2, 4, 4), np.uint8), np.array([0, 1])
    splits = {"train_images": images, "train_labels": labels, "test_images": images, "test_labels": labels.astype("u8")}
    assert npz.read(write_npz(tmp_path / "x.npz", **splits)).class_names == ("0", "1")


@pytest.mark.parametrize("label", [2**63, "x" * 1_001])
def test_parquet_label_beyond_all_bounds_is_refused(tmp_path, write, label):
    pa = pytest.importorskip("pyarrow")
    labels = pa.array([label] * 2, pa.string() if isinstance(label, str) else pa.uint64())
    images = [np.zeros((4, 4, 3), np.uint8)] * 2
    path = write.parquet(tmp_path / "x.parquet", images, [0, 0], names=None, label=labels)
    with pytest.raises(InputError, match=r"row 0: label .{1,80} is no"):
        parquet.read(path)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cifar-10-batches-py/data_batch_1", tarfile.REGTYPE),
        ("something-else", tarfile.REGTYPE),
        ("cifar-10-batches-py/data_batch_1", tarfile.GNUTYPE_LONGNAME),
        ("cifar-10-batches-py/data_batch_1", tarfile.XHDTYPE),
    ],
)
def test_archive_that_unpacks_to_gigabytes_is_refused(tmp_path, name, kind):
    member = tarfile.TarInfo(name)
    member.size, member.type = 640 * 2**20, kind
    zeros = gzip.compress(bytes(2**24))
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(gzip.compress(member.tobuf(tarfile.GNU_FORMAT)) + 40 * zeros)
    assert path.stat().st_size < 1_000_000
    said = refusal(READ.replace("READER", "cifar"), path, imports=IMPORTS, mib=600)
    assert said == f"{path} unpacks to more than 268,435,456 bytes: it is not a CIFAR data set"


def test_sparse_member_is_not_unpacked(tmp_path):
    path = tmp_path / "cifar-10-python.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        member = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        member.type = tarfile.GNUTYPE_SPARSE
        header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
        header[483:495] = b"%011o\0" % (2**32)  # the size that the holes make of it
        header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:512]))
        archive.fileobj.write(bytes(header))
    said = refusal(READ.replace("READER", "cifar"), path, imports=IMPORTS)
    assert said == f"{path} contains no CIFAR batches"


@pytest.mark.parametrize(
    "content",
    [b"Nr\xff\xff\xff\x0f.", b"Np268435455\n.", b"\x80\x05\x96\xff\xff\xff\x7f\0\0\0\0."],
    ids=["binary", "text", "bytearray"],
)
def test_nine_bytes_of_pickle_take_no_gigabytes(tmp_path, content):
    (tmp_path / "data_batch_1").write_bytes(content)
    said = refusal(READ.replace("READER", "cifar"), tmp_path, imports=IMPORTS)
    assert f"{tmp_path} is not a " in said or "data_batch_1 is truncated or corrupt" in said, said
    assert "MemoryError" not in said


@pytest.mark.parametrize(
    "content",
    [
        b"})" + b"\x85" * 1_000_000 + b"Ns.",  # as a key, a tuple in a tuple in …
        b"})" + b"2\x86" * 60 + b"Ns.",  # a tuple of two that are the same tuple of two that …
        b"cnumpy\ndtype\n]" + b"2\x86" * 60 + b"\x85R.",
    ],
    ids=["deep", "doubled", "named"],
)
def test_nested_tuples_neither_crash_nor_hang(tmp_path, content):
    (tmp_path / "data_batch_1").write_bytes(content)
    said = refusal(READ.replace("READER", "cifar"), tmp_path, imports=IMPORTS, timeout_s=30)
    assert "data_batch_1 is truncated or corrupt" in said or "data_batch_1: its pickle holds an array of list" in said


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_numbers_its_objects_in_order(protocol):
    names = [f"name {i}" for i in range(300)]
    assert cifar._unpickle(pickle.dumps({"a": names, "b": names}, protocol), "x") == {"a": names, "b": names}


def test_value_that_all_rows_repeat_is_not_held_for_all(tmp_path, write):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    image = write.encode(np.zeros((4, 4, 3), np.uint8)) + bytes(2**20)
    contents, labels = pa.array([image] * 700).dictionary_encode(), [i % 2 for i in range(700)]
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"img": contents.cast(pa.binary()), "label": labels}), path)
    assert path.stat().st_size < 2_000_000
    count = "print(len(parquet.read(pathlib.Path(sys.argv[1])).train))"
    imports = "import pyarrow.parquet; from pocketvit.data.formats import parquet"
    assert refusal(count, path, imports=imports, mib=500) == "700"
