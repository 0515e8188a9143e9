"""What the pages of a parquet file unpack to, checked before Arrow reads them.

Arrow allocates what the header of a page claims, up to 2 GiB, whatever the table at the end of the file says. A few bytes
can also stand for any number of rows, lengths or copies of a value. So the headers of the pages that Arrow will read are
read here first.

Source: https://github.com/apache/parquet-format (parquet.thrift), in the compact protocol of
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from pocketvit.errors import InputError
from pocketvit.files import FREELY_UNPACKED, MOST_UNPACKED

if TYPE_CHECKING:
    import pyarrow.parquet as pq

MOST_PAGE_UNPACKED = 4
"""Greatest ratio by which a page of more than `FREELY_UNPACKED` may unpack; images are compressed already."""
BYTES_PER_ROW = 16  # an image takes more, so a file has no more rows than bytes divided by this, or `FEW_ROWS`
FEW_ROWS = 10_000
ROWS_AT_ONCE = 32
_HEADER_BYTES = (2**10, 2**14, 2**24)  # of a header: usual, with two values of 4 KiB as statistics, most
_SAFE_ENCODINGS = {0, 2, 3, 8}
"""Of texts and bytes: plain or by dictionary. The others repeat lengths or parts of values any number of times."""
_DICTIONARY_PAGE = 2
DEPTH = 12  # of structures and lists in each other
_INNER = {0: (5, 2), _DICTIONARY_PAGE: (7, 2), 3: (8, 4)}
"""Kinds of pages (data, dictionary, data in the second version) with the numbers of the field on their values, and of the
field in it on their encoding."""


class _Chunk(NamedTuple):
    """A column in one group of rows, as the table at the end of the file has it."""

    num_values: int
    total_compressed_size: int
    data_page_offset: int
    dictionary_page_offset: int | None


class _Page(NamedTuple):
    """The header of a page."""

    kind: int
    unpacked: int
    packed: int
    """Bytes."""
    values: int
    encoding: int


def rows_at_once(parquet: "pq.ParquetFile", file: Path, column: str) -> int:
    """How many rows of a column to read at once, so that they take little memory, however often a value is repeated.

    Args:
        column: the path of a column without inner ones, in the file's schema.
    Raises:
        InputError: it would take far more memory than the file has bytes.
        Exception: any error on a broken file.
    """
    table, size = parquet.metadata, file.stat().st_size
    index = next(i for i in range(len(parquet.schema)) if parquet.schema.column(i).path == column)
    about = parquet.schema.column(index)
    if about.max_repetition_level or about.physical_type == "FIXED_LEN_BYTE_ARRAY":
        raise InputError(
            f"{file}: column {column} contains lists or values of one length: write bytes, text or integers"
        )
    groups = [table.row_group(i) for i in range(table.num_row_groups)]
    if (rows := sum(group.num_rows for group in groups)) > max(FEW_ROWS, size // BYTES_PER_ROW):
        raise InputError(f"{file} claims {rows:,} rows in {size:,} bytes: too many to hold an image each")
    largest, packed, unpacked = 1, 0, 0
    with file.open("rb") as stream:
        for group, chunk in zip(groups, _chunks(stream, index), strict=True):
            for page in _pages(stream, chunk):
                _check(page, group.num_rows, about.physical_type, f"{file}: column {column}")
                largest, packed, unpacked = max(largest, page.unpacked), packed + page.packed, unpacked + page.unpacked
    if unpacked > max(FREELY_UNPACKED, MOST_UNPACKED * packed):
        raise InputError(f"{file}: column {column} would unpack from {packed:,} bytes to {unpacked:,}")
    return max(1, min(ROWS_AT_ONCE, FREELY_UNPACKED // (8 * largest)))  # Arrow and Python hold each several times


def _check(page: _Page, rows: int, physical_type: str, where: str) -> None:
    """Refuse a page that would take too much memory."""
    if page.unpacked > max(FREELY_UNPACKED, MOST_PAGE_UNPACKED * page.packed):
        raise InputError(
            f"{where} has a page that would unpack from {page.packed:,} bytes to {page.unpacked:,}; write smaller pages"
        )
    if page.values > (page.unpacked if page.kind == _DICTIONARY_PAGE else rows):
        raise ValueError(f"a page claims {page.values:,} values")
    if physical_type == "BYTE_ARRAY" and page.encoding not in _SAFE_ENCODINGS:
        raise InputError(f"{where} is encoded by differences ({page.encoding}): write it plain or by dictionary")


def _chunks(stream: IO[bytes], index: int) -> list[_Chunk]:
    """A column in every group of rows; not by Arrow, whose `RowGroupMetaData.column` may end the process."""
    size = stream.seek(-8, 2)
    length = int.from_bytes(stream.read(4), "little")
    stream.seek(size - length)
    groups = _structure(stream.read(length), 0)[0][4]
    columns = [group[1][index][3] for group in groups]
    return [_Chunk(column[5], column[7], column[9], column.get(11)) for column in columns]


def _pages(stream: IO[bytes], chunk: _Chunk) -> Iterator[_Page]:
    """The pages of a column in one group of rows, until its number of values is reached, as Arrow reads them."""
    at, seen = chunk.data_page_offset, 0
    if 0 < (dictionary := chunk.dictionary_page_offset or 0) < at:
        at = dictionary
    end = at + chunk.total_compressed_size
    while at < end and seen < chunk.num_values:
        fields, length = _header(stream, at)
        kind, unpacked, packed = fields[1], fields[2], fields[3]
        inner, encoded_as = _INNER.get(kind, (0, 0))
        about = fields.get(inner, {})
        values, encoding = about.get(1, 0), about.get(encoded_as, 0)
        if not all(0 <= number < 2**31 for number in (unpacked, packed, values)):
            raise ValueError(f"a page claims to have {packed:,} bytes, {unpacked:,} unpacked, and {values:,} values")
        yield _Page(kind, unpacked, packed, values, encoding)
        seen += 0 if kind == _DICTIONARY_PAGE else values
        at += length + packed


def _header(stream: IO[bytes], at: int) -> tuple[dict[int, Any], int]:
    """The header of the page at a byte of the file, and its length."""
    for most in _HEADER_BYTES:
        stream.seek(at)
        content = stream.read(most)
        try:
            return _structure(content, 0)
        except IndexError:
            if len(content) < most:
                break
    raise ValueError(f"the header of the page at byte {at:,} has no end")


def _structure(content: bytes, at: int, depth: int = DEPTH) -> tuple[dict[int, Any], int]:
    """The integers, structures and lists in a structure by the number of their field, and where it ends.

    Raises:
        IndexError: it goes on beyond `content`.
        ValueError: it has fields that parquet's structures do not have.
    """
    fields: dict[int, Any] = {}
    number = 0
    while kind := content[at] & 15:
        step, at = content[at] >> 4, at + 1
        if step:
            number += step
        else:
            number, at = _integer(content, at)
        if kind not in (1, 2):  # true and false, which have no content in a structure
            fields[number], at = _value(content, at, kind, depth)
    return fields, at + 1


def _value(content: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    """A value of a type, and where it ends; None for bytes and fractions."""
    if kind in (4, 5, 6):
        return _integer(content, at)
    if kind in (1, 2, 3):
        return content[at], at + 1
    if kind == 7:
        return None, at + 8
    if kind == 8:
        length, at = _varint(content, at)
        return None, at + length
    if kind == 9 and depth:
        length, inner, at = content[at] >> 4, content[at] & 15, at + 1
        if length == 15:
            length, at = _varint(content, at)
        values = []
        for _ in range(length):
            value, at = _value(content, at, inner, depth - 1)
            values.append(value)
        return values, at
    if kind == 12 and depth:
        return _structure(content, at, depth - 1)
    raise ValueError(f"a structure in the file has a field of type {kind}")


def _integer(content: bytes, at: int) -> tuple[int, int]:
    """A signed integer, and where it ends."""
    value, at = _varint(content, at)
    return (value >> 1) ^ -(value & 1), at


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """An integer in groups of seven bits, lowest first, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        value, at = value | (content[at] & 127) << shift, at + 1
        if content[at - 1] < 128:
            return value, at
    raise ValueError("a structure in the file has an integer of more than 64 bits")
