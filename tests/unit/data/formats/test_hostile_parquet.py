"""Small parquet files that would unpack to gigabytes, whatever they claim."""

from pathlib import Path

import numpy as np
import pytest
from bounded import refusal

from pocketvit.data.formats import parquet_pages

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

READ = "parquet.read(pathlib.Path(sys.argv[1]))"
READ_EACH = """
for path in sys.argv[1:]:
    try:
        parquet.read(pathlib.Path(path))
    except InputError as error:
        print(error)
"""
IMPORTS = "import pyarrow.parquet\nfrom pocketvit.data.formats import parquet"
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c49444154789c63f8ffff3f0005fe02fe0def46b80000000049454e44ae426082"
)
MIB = 2**20
LABELS = [0, 1] * 4


def written(path: Path, images: object = None, labels: object = None, **options: object) -> Path:
    """A file with these columns, eight small images by default."""
    table = pa.table({"image": images or pa.array([PNG] * 8), "label": labels or pa.array(LABELS)})
    pq.write_table(table, path, **{"compression": "zstd"} | options)
    return path


def zeros(mib: int) -> bytes:
    return bytes(mib * MIB)


def test_page_that_unpacks_too_far_is_refused(tmp_path):
    images = pa.array([zeros(200), *[PNG] * 7])
    options = {"use_dictionary": False, "write_statistics": False}
    cases = [(codec, v) for codec in ("zstd", "gzip", "snappy", "brotli", "lz4") for v in ("1.0", "2.0")]
    paths = [
        written(tmp_path / f"{codec}-{v}.parquet", images, compression=codec, data_page_version=v, **options)
        for codec, v in cases
    ]
    assert all(path.stat().st_size < 10 * MIB for path in paths)
    said = refusal(READ_EACH, *paths, imports=IMPORTS, mib=150).splitlines()
    for path, line in zip(paths, said, strict=True):
        assert line.startswith(f"{path}: column image has a page that would unpack from ") and " to 209,715," in line


def test_what_is_not_read_may_be_large(tmp_path):
    others = pa.array(["x" * 200 * MIB, *"abcdefg"])
    images = pa.StructArray.from_arrays([pa.array([PNG] * 8), others], ["bytes", "path"])
    path = written(tmp_path / "x.parquet", images)
    assert refusal(f"print(len({READ}.train))", path, imports=IMPORTS, mib=200) == "8"


def test_labels_that_unpack_too_far_are_refused(tmp_path):
    path = written(tmp_path / "x.parquet", labels=pa.array(["x" * 200 * MIB, *"abcdefg"]), use_dictionary=False)
    assert "column label has a page that would unpack from" in refusal(READ, path, imports=IMPORTS, mib=200)


def test_column_of_many_pages_that_unpacks_too_far_is_refused(tmp_path):
    images = pa.array([zeros(20) for _ in range(8)])
    path = written(tmp_path / "x.parquet", images, use_dictionary=False, write_batch_size=1)
    assert f"column image would unpack from {sizes(path)[0]:,} bytes to" in refusal(READ, path, imports=IMPORTS)


def test_a_table_of_columns_that_ends_the_process_in_arrow_is_one_error(tmp_path):
    """A column that is said to have no absent values, although their statistics are there."""
    path = written(tmp_path / "x.parquet")
    content, optional = path.read_bytes(), b"\x25\x02\x18\x05image"
    assert content.count(optional) == 1
    path.write_bytes(content.replace(optional, b"\x25\x00" + optional[2:]))
    told = refusal(READ, path, imports=IMPORTS)
    assert "Definition level histogram size mismatch" in told or "Unexpected end of stream" in told  # pyarrow 18


def test_columns_are_found_as_arrow_finds_them(tmp_path):
    path = written(tmp_path / "x.parquet", row_group_size=3)
    table = pq.ParquetFile(path).metadata
    with path.open("rb") as stream:
        for index in range(table.num_columns):
            theirs = [table.row_group(i).column(index) for i in range(table.num_row_groups)]
            names = parquet_pages._Chunk._fields
            wanted = [tuple(getattr(chunk, name) for name in names) for chunk in theirs]
            assert parquet_pages._chunks(stream, index) == wanted and len(wanted) == 3


def sizes(path: Path) -> tuple[int, int]:
    """What the pages of the first column hold, packed and unpacked, by the headers that are read."""
    with path.open("rb") as stream:
        pages = list(parquet_pages._pages(stream, pq.ParquetFile(path).metadata.row_group(0).column(0)))
    return sum(page.packed for page in pages), sum(page.unpacked for page in pages)


def varint(number: int, length: int = 5) -> bytes:
    """A positive integer as Thrift writes it, in so many bytes."""
    number *= 2
    return bytes((number >> 7 * i & 127) | (128 if i < length - 1 else 0) for i in range(length))


@pytest.mark.parametrize(
    ("claimed", "says"),
    [
        (2**31 - 1, "has a page that would unpack from"),  # Arrow would allocate it
        (2**31, "is corrupt after row 0: a page claims to have"),
        (1_000, "is corrupt after row 0: "),  # Arrow notices that there is more
    ],
)
def test_page_that_claims_another_size(tmp_path, claimed, says):
    path = written(tmp_path / "x.parquet", pa.array([zeros(200), *[PNG] * 7]), use_dictionary=False)
    content, size = path.read_bytes(), sizes(path)[1]
    assert content.count(varint(size)) == 1
    path.write_bytes(content.replace(varint(size), varint(claimed)))
    assert says in refusal(READ, path, imports=IMPORTS)


def test_claims_at_the_end_of_the_file_are_not_trusted(tmp_path):
    path = written(tmp_path / "x.parquet", pa.array([zeros(200), *[PNG] * 7]), use_dictionary=False)
    claimed = pq.ParquetFile(path).metadata.row_group(0).column(0).total_uncompressed_size
    path.write_bytes(path.read_bytes().replace(varint(claimed), varint(1_000)))
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).total_uncompressed_size == 1_000
    assert "has a page that would unpack from" in refusal(READ, path, imports=IMPORTS)


def test_value_that_many_rows_repeat_is_read_once_at_a_time(tmp_path):
    large = PNG + zeros(50)
    path = written(tmp_path / "x.parquet", pa.array([large]).take(pa.array([0] * 32)), pa.array([0, 1] * 16))
    assert path.stat().st_size < MIB
    assert refusal(f"print(len({READ}.train))", path, imports=IMPORTS, mib=700) == "32"


def test_values_that_a_page_stores_by_differences_are_refused(tmp_path):
    """A header of ten bytes can claim two billion lengths, or values that begin like the last one."""
    encodings = ("DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY")
    paths = [
        written(tmp_path / f"{encoding}.parquet", use_dictionary=False, column_encoding={"image": encoding})
        for encoding in encodings
    ]
    said = refusal(READ_EACH, *paths, imports=IMPORTS).splitlines()
    assert len(said) == 2 and all("column image is encoded by differences" in line for line in said)


@pytest.mark.parametrize("label", [0, None])
def test_more_rows_than_a_file_can_hold_images_are_refused(tmp_path, label):
    count = 20_000_000
    labels = pa.array(np.zeros(count, np.int8)) if label == 0 else pa.nulls(count, pa.int8())
    path = written(tmp_path / "x.parquet", pa.nulls(count, pa.binary()), labels)
    said = refusal(READ, path, imports=IMPORTS, timeout_s=20)
    assert said == f"{path} claims 20,000,000 rows in {path.stat().st_size:,} bytes: too many to hold an image each"


def test_columns_of_other_forms_are_refused(tmp_path):
    ends = [0, 20_000_000, *range(20_000_001, 20_000_008)]
    lists = pa.ListArray.from_arrays(ends, pa.array(np.zeros(ends[-1], np.int8)))
    fixed = pa.array([None] * 8, pa.binary(MIB))
    paths = [written(tmp_path / "lists.parquet", labels=lists), written(tmp_path / "fixed.parquet", labels=fixed)]
    said = refusal(READ_EACH, *paths, imports=IMPORTS, mib=100).splitlines()
    assert [line.partition(" contains")[0] for line in said] == [f"{path}: column label" for path in paths]


@pytest.mark.parametrize("codec", ["none", "zstd", "snappy"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_pages_are_those_that_arrow_wrote(tmp_path, codec, version, dictionary):
    rng = np.random.default_rng(0)
    images = pa.array([None if i % 7 == 0 else rng.bytes(int(rng.integers(500))) for i in range(3_000)])
    labels = pa.array(rng.integers(0, 9, 3_000))
    options = {"data_page_size": 5_000, "row_group_size": 1_000, "write_batch_size": 100, "data_page_version": version}
    path = written(tmp_path / "x.parquet", images, labels, compression=codec, use_dictionary=dictionary, **options)
    table = pq.ParquetFile(path).metadata
    with path.open("rb") as stream:
        for chunk in (table.row_group(group).column(column) for group in range(3) for column in range(2)):
            pages = list(parquet_pages._pages(stream, chunk))
            assert sum(page.values for page in pages if page.kind != 2) == chunk.num_values == 1_000
            gained = sum(page.unpacked - page.packed for page in pages)
            assert gained == chunk.total_uncompressed_size - chunk.total_compressed_size
            assert (pages[0].kind == 2) == dictionary
    assert parquet_pages.rows_at_once(pq.ParquetFile(path), path, "image") == parquet_pages.ROWS_AT_ONCE
