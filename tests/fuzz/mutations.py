"""Change a valid file into one that may be hostile: its bytes, or what is inside and still packed as it should be.

What a file is, its first bytes say. Most changes go inside: a PNG's chunks get right checksums, an archive's members are
packed again, JSON stays JSON. So they reach the code behind the first check. All randomness is the given generator's.
"""

import gzip
import io
import json
import re
import struct
import tarfile
import zipfile
import zlib
from functools import cache
from random import Random

import numpy as np
from plain import change_bytes, change_json, change_text, change_value

LARGE = 2**27
"""Bytes that a small file may be made to unpack to, which is more than any of ours does."""


@cache
def bomb() -> bytes:
    """As many zeros, compressed by zlib; half a second to make."""
    return zlib.compress(bytes(LARGE), 9)


def mutate(content: bytes, random: Random) -> bytes:
    """A changed form of a file's content."""
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        if len(content) >= LARGE:  # to change it more takes a second
            break
        change = next((change for begin, change in _INSIDE if re.match(begin, content, re.DOTALL)), change_text)
        try:
            content = (change if random.random() < 0.6 else change_bytes)(content, random)
        except Exception:  # it is no longer what it begins like
            content = change_bytes(content, random)
    return content


def _zip(content: bytes, random: Random) -> bytes:
    """A member changed, renamed, removed or repeated; packed again."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
        kind = random.choice((archive.infolist()[0].compress_type, 0, 8, 12, 14))
    at = random.randrange(len(members))
    name, inner = members[at]
    match random.randrange(8):
        case 0:
            del members[at]
        case 1:
            members.append(members[at])
        case 2:
            members[at] = (
                random.choice(("class_names.npy", "x.npy", "\x1b[2J.npy", "../x.npy", "images.npy", name * 2)),
                inner,
            )
        case 3:
            members[at] = (name, bytes(LARGE))
        case _:
            members[at] = (name, mutate(inner, random))
    if sum(len(inner) for _, inner in members) >= LARGE:
        kind = 8  # the others take seconds to pack it
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", kind, compresslevel=1) as archive:
        for name, inner in members:
            archive.writestr(name, inner)
    return stream.getvalue()


def _array(content: bytes, random: Random) -> bytes:
    """An array of NumPy with another type, shape or values, or with a header that does not fit them."""
    array = np.lib.format.read_array(io.BytesIO(content))
    if random.random() < 0.3:  # the header alone
        length = struct.unpack("<H", content[8:10])[0]
        header = content[10 : 10 + length].decode("latin-1").strip()
        numbers = [
            "0",
            "-1",
            "1",
            "99999999",
            "4294967296",
            "9223372036854775807",
            "(1, 2)",
            "True",
            "'a'",
            "None",
            "1" * 30,
        ]
        kinds = [
            "'|O'",
            "'<f8'",
            "'<U4'",
            "'>i8'",
            "'|V8'",
            "[('a', '<i4')]",
            "'<M8[ns]'",
            "'|b1'",
            "'<c16'",
            "'<U99999999'",
        ]
        header = re.sub(r"\d+(?=[,)])", lambda _: random.choice(numbers), header, count=random.choice((1, 2)))
        if random.random() < 0.5:
            header = re.sub(r"'descr': '[^']*'", lambda _: f"'descr': {random.choice(kinds)}", header)
        header += "\n"
        return (
            content[:8] + struct.pack("<H", len(header)) + header.encode("latin-1", "replace") + content[10 + length :]
        )
    flat = array.reshape(-1)
    match random.randrange(9):
        case 0:
            array = array.astype(random.choice(("f4", "f8", "i1", "u8", ">i8", "U3", "S3", "c8", "?", "f2", "u2")))
        case 1:
            array = array.reshape(random.choice(((-1,), (1, *array.shape), (*array.shape, 1), array.shape[::-1])))
        case 2:
            array = array[: random.choice((0, 1, -1))] if array.ndim else array
        case 3:
            array = np.zeros(
                random.choice(((0,), (0, 0), (), (1, 1, 1, 1, 1), (3, 0, 4), (2, 5_000, 5_000))), array.dtype
            )
        case 4:
            array = np.concatenate([array, array]) if array.ndim else array
        case 5:
            array = np.asfortranarray(array)
        case 6 if array.dtype.kind in "US":
            array = np.array([random.choice(("", "\x1b[2J", "a", "\ud800", "x" * 3_000, "\0")) for _ in flat])
        case _ if array.dtype.kind in "iuf":
            numbers = [0, 1, 255, *([-1, 2**31 - 1] if array.dtype.itemsize > 2 and array.dtype.kind != "u" else [])]
            numbers += [float("nan"), float("inf"), -1e30] if array.dtype.kind == "f" else []
            flat[random.randrange(max(1, len(flat))) :: random.choice((1, 7, 10**9))] = random.choice(numbers)
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array)
    return stream.getvalue()


def _gzip(content: bytes, random: Random) -> bytes:
    return gzip.compress(mutate(gzip.decompress(content), random), 1)


def _tar(content: bytes, random: Random) -> bytes:
    """A member changed, removed, renamed, or made something else than a file."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = [(member, archive.extractfile(member).read()) for member in archive if member.isfile()]
    at = random.randrange(len(members))
    member, inner = members[at]
    match random.randrange(6):
        case 0:
            del members[at]
        case 1:
            member.type = random.choice(
                (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE)
            )
            member.linkname, member.size, inner = random.choice(("/dev/zero", "test", "../x", "")), 0, b""
        case 2:
            member.name = random.choice(("../../x", "/tmp/x", "test_batch", "meta", "\x1b[2J", member.name * 5))
        case 3:
            inner = bytes(random.choice((0, 1, LARGE)))
        case _:
            inner = mutate(inner, random)
    if at < len(members):
        members[at] = (member, inner)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for member, inner in members:
            member.size = len(inner)
            archive.addfile(member, io.BytesIO(inner))
    return stream.getvalue()


def _pickle(content: bytes, random: Random) -> bytes:
    """Instructions of pickles put in, which name functions, claim sizes, or build what never ends."""
    put = random.choice((
        b"cos\nsystem\n(S'true'\ntR", b"cbuiltins\neval\n(S'1'\ntR", b"r\xff\xff\xff\x7f",
        b"\x96" + b"\xff" * 7 + b"\x7f", b"B\xff\xff\xff\x7f", b"\x8e" + b"\xff" * 8, b"(" * 5_000,
        b")" * 5_000, b"(lp0\nh\x00a", b"\x8a\xff", b"I" + b"9" * 9_999 + b"\n",
        b"]q\x01" + b"h\x01h\x01\x86q\x01" * 200, b"}" + b"\x93", b"cnumpy\ndtype\n(S'O8'\ntR",
        b"cnumpy\nndarray\n", b"0", b"1", b"2", b"a", b"b", b"cnumpy.core.multiarray\n_reconstruct\n",
        b"\x95" + b"\xff" * 8, b"P1\n", b"\x82\x01", b"X\x04\0\0\0\xed\xa0\x80a", b"." * 3,
    ))  # fmt: skip
    at = random.choice((2, random.randrange(len(content)), random.randrange(min(200, len(content)))))
    return content[:at] + put + content[at + random.choice((0, 0, len(put))) :]


def _png(content: bytes, random: Random) -> bytes:
    """A chunk changed, removed, moved, repeated or put in, all with right checksums."""
    chunks, at = [], 8
    while at + 12 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    at = random.randrange(len(chunks))
    kind, inner = chunks[at]
    match random.randrange(9):
        case 0:
            del chunks[at]
        case 1:
            chunks.insert(random.randrange(len(chunks)), chunks[at])
        case 2:
            sizes = [random.choice((0, 1, 16, 13_000, 65_535, 2**31 - 1)) for _ in range(2)]
            depth, color, others = (
                random.choice((1, 2, 8, 16, 3)),
                random.choice((0, 2, 3, 4, 6, 7)),
                random.choice((0, 0, 1)),
            )
            chunks[0] = (b"IHDR", struct.pack(">IIBBBBB", *sizes, depth, color, 0, 0, others))
        case 3:
            name = random.choice((b"zTXt", b"iCCP"))
            chunks.insert(1, (name, b"a\0\0" + bomb()))
        case 4:
            chunks.insert(1, (b"iTXt", b"a\0\1\0\0\0" + bomb()))
        case 5:
            extra = random.choice(
                (
                    b"acTL",
                    b"fcTL",
                    b"fdAT",
                    b"tRNS",
                    b"PLTE",
                    b"eXIf",
                    b"pHYs",
                    b"gAMA",
                    b"sRGB",
                    b"cHRM",
                    b"tIME",
                    b"IDAT",
                )
            )
            chunks.insert(
                random.randrange(1, len(chunks) + 1),
                (extra, random.randbytes(random.choice((0, 1, 4, 6, 8, 26, 32, 768)))),
            )
        case 6 if kind == b"IDAT":
            chunks[at] = (kind, random.choice((zlib.compress(change_bytes(zlib.decompress(inner), random)), bomb())))
        case _:
            chunks[at] = (kind, change_bytes(inner, random)[: 2**16])
    head = content[:8]
    return head + b"".join(
        struct.pack(">I", len(inner)) + kind + inner + struct.pack(">I", zlib.crc32(kind + inner))
        for kind, inner in chunks
    )


def _safetensors(content: bytes, random: Random) -> bytes:
    """The header changed as JSON."""
    length = int.from_bytes(content[:8], "little")
    header = change_json(content[8 : 8 + length], random).strip()
    if random.random() < 0.8:
        return len(header).to_bytes(8, "little") + header + content[8 + length :]
    return content[:8] + header + content[8 + length :]


def _parquet(content: bytes, random: Random) -> bytes:
    """Another type or other values of a column, other names, or other metadata, written in one of many ways."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.ParquetFile(io.BytesIO(content)).read(use_threads=False)
    at = random.randrange(table.num_columns)
    name, rows = table.column_names[at], len(table)
    match random.randrange(6):
        case 0:
            held = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
            text = json.dumps(change_value(held, random))
            table = table.replace_schema_metadata({"huggingface": text if random.random() < 0.9 else "[" * 9_999})
        case 1:
            table = table.rename_columns(
                [random.choice((each, "label", "img.bytes", "", "\x1b[2J")) for each in table.column_names]
            )
        case 2:
            table = table.slice(0, random.choice((0, 1)))
        case _:
            kinds = (pa.int8(), pa.binary(), pa.null(), pa.list_(pa.int64()), pa.binary(4))
            column = random.choice((
                lambda: pa.nulls(rows, random.choice(kinds)),
                lambda: pa.array([random.choice((0, 1, -1, 2**62, None)) for _ in range(rows)], pa.int64()),
                lambda: pa.array([random.choice(("a", "", "\x1b[2J", "x" * 2_000, None)) for _ in range(rows)]),
                lambda: pa.array([bytes(random.choice((0, 1, 2**20)))] * rows),
                lambda: pa.array([0.5, *[float("nan")] * (rows - 1)]), lambda: pa.array([[0] * 1_000] * rows),
                lambda: pa.array([{"bytes": None, "path": "a"}] * rows), lambda: pa.array([{"path": b"a"}] * rows),
                lambda: pa.array([{"bytes": {"bytes": b"a"}}] * rows), lambda: pa.array([True] * rows),
                lambda: pa.array([[("a", 1)]] * rows, pa.map_(pa.string(), pa.int8())),
                lambda: pa.array(["a", *["b"] * (rows - 1)]).dictionary_encode(),
                lambda: pa.array([10**18] * rows, pa.decimal128(38)), lambda: pa.array([2**63] * rows, pa.uint64()),
                lambda: pa.array([0] * rows, pa.timestamp("ns")),
                lambda: pa.array([bytes(LARGE), *[b""] * (rows - 1)], pa.large_binary()),
            ))()  # fmt: skip
            table = table.set_column(at, name, column)
    stream = io.BytesIO()
    codecs = ("zstd", "snappy", "lz4", *(("none", "gzip", "brotli") if table.nbytes < LARGE else ()))
    options = {"compression": random.choice(codecs), "use_dictionary": random.random() < 0.6}
    options |= {"data_page_version": random.choice(("1.0", "2.0")), "write_statistics": random.random() < 0.5}
    pq.write_table(table, stream, row_group_size=random.choice((1, 3, None)), **options)
    return stream.getvalue()


_INSIDE = (
    (rb"PK", _zip),
    (rb"\x93NUMPY", _array),
    (rb"\x1f\x8b", _gzip),
    (rb"\x89PNG", _png),
    (rb"PAR1", _parquet),
    (rb".{257}ustar", _tar),
    (rb"\x80[\x02-\x05]", _pickle),
    (rb".{4}\0{4}\{", _safetensors),
    (rb"[{\[]", change_json),
    (rb"[^\x00-\x08\x80-\xff]{1,100}", change_text),
    (rb"", change_bytes),
)
"""The first bytes of a kind of file, and what changes its inside."""
