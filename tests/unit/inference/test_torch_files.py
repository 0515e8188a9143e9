"""PyTorch's own files: what torch.save writes is read as it is, and nothing in one takes time, memory or the process."""

import copy
import io
import pickle
import zipfile
from collections import OrderedDict

import pytest
import torch

from pocketvit.errors import InputError
from pocketvit.inference.torch_files import unpickled

MATRIX = torch.arange(24.0).reshape(6, 4)
KINDS = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool, torch.complex64, torch.complex128, torch.uint16, torch.float8_e4m3fn,
)  # fmt: skip
TENSORS = OrderedDict(
    {str(kind): MATRIX.to(kind) for kind in KINDS}
    | {"turned": MATRIX.t(), "part": MATRIX[2:5, 1:3], "number": torch.tensor(3.0), "none": torch.zeros(0, 3)}
    | {"parameter": torch.nn.Parameter(MATRIX), "repeated": MATRIX[:1].expand(3, 4)}
)
TENSORS._metadata = OrderedDict(head={"version": 2})  # as that of a module's state dict
REST = {
    "optimizer": torch.optim.AdamW([torch.nn.Parameter(MATRIX)]).state_dict(),
    "args": {"size": torch.Size([2]), "device": torch.device("cpu"), "type": torch.int64, "names": {"a"}, "key": b"a"},
}
SAVED = io.BytesIO()
torch.save({"a": torch.ones(2)}, SAVED)


def file_of(program=None, **members):
    """A file that torch.save wrote, with another pickle or other members."""
    stream = io.BytesIO()
    with zipfile.ZipFile(SAVED) as old, zipfile.ZipFile(stream, "w") as new:
        held = {name: old.read(name) for name in old.namelist()} | members
        for name, content in held.items():
            new.writestr(name, program if program and name.endswith("/data.pkl") else content)
    return stream.getvalue()


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("content", [TENSORS, {"model": TENSORS, **REST}], ids=["plain", "checkpoint"])
def test_what_was_saved_is_read(content, protocol):
    stream = io.BytesIO()
    torch.save(content, stream, pickle_protocol=protocol)
    found = unpickled(stream.getvalue(), "x.pt")
    assert list(found) == list(TENSORS)
    for name, tensor in TENSORS.items():
        assert (found[name].dtype, found[name].stride()) == (tensor.dtype, tensor.stride())
        torch.testing.assert_close(found[name], tensor.detach(), rtol=0, atol=0)
    assert found["turned"].untyped_storage().data_ptr() == found["part"].untyped_storage().data_ptr()


@pytest.mark.parametrize("before", [b"", b"(", b"N", b"(N"], ids=["nothing", "mark", "value", "mark-value"])
def test_an_instruction_that_lacks_what_it_works_on_ends_in_one_line(before):
    codes = {code for name, code in vars(pickle).items() if name in pickle.__all__ and isinstance(code, bytes)}
    assert len(codes) > 60
    for code in codes:
        for after in (b"", b"N.", b"\0\0\0\0N."):
            with pytest.raises(InputError, match=r"^x\.pt holds "):
                unpickled(file_of(b"\x80\x02" + before + code + after), "x.pt")


DOUBLED = b")q\0" + b"h\0h\0\x86q\0" * 60  # a tuple of two that are the same tuple of two that …


@pytest.mark.parametrize(
    ("program", "says"),
    [
        (b"})" + b"\x85" * 200_000 + b"Ns.", "unhashable"),  # as a key, a tuple in a tuple in …
        (DOUBLED + b"}h\0Ns.", "unhashable"),
        (DOUBLED + b"h\0)R.", "not callable"),  # to be named in the message
        (DOUBLED + b"ccollections\nOrderedDict\n]]h\0aNaa\x85R.", "takes 0 positional arguments"),
        (b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.", "asks for builtins.bytearray"),
        (b"ctorch\nTensor\nJ\0\0\0\x10\x85R.", "asks for torch.Tensor"),
        (
            b"c_codecs\nencode\nq\0X\1\0\0\0aX\6\0\0\0latin1\x86R" + b"q\1h\0h\1X\3\0\0\0hex\x86R" * 40 + b".",
            "something else",
        ),
    ],
    ids=["deep", "doubled", "named", "copied", "bytearray", "tensor", "codec"],
)
def test_a_small_pickle_neither_hangs_nor_crashes_nor_fills_the_memory(program, says):
    with pytest.raises(InputError, match=rf"^x\.pt holds .{{,100}}{says}"):
        unpickled(file_of(b"\x80\x02" + program), "x.pt")


def test_a_name_that_takes_forever_to_print_is_none():
    nested = b"(\x91q\0" + b"(h\0K\1\x91q\1(h\0K\2\x91q\2(h\1h\2\x91q\0" * 40  # each set has the last one twice
    with pytest.raises(InputError, match=r"^x\.pt holds something else than tensors by name"):
        unpickled(file_of(b"\x80\x04" + nested + b"}h\0Ns."), "x.pt")


def test_a_tensor_stays_within_its_member():
    with zipfile.ZipFile(SAVED) as archive:
        program = archive.read("archive/data.pkl")
    assert program.count(b"K\x02\x85") == 1  # its shape
    content = file_of(program.replace(b"K\x02\x85", b"M\0\2\x85"), **{"archive/more": bytes(10_000)})
    with pytest.raises(InputError, match="out of bounds for storage of size 8"):
        unpickled(content, "x.pt")


@pytest.mark.parametrize(("size", "count"), [(2**20, 1), (1_000, 20), (2**60, 1)])
def test_numbers_are_not_repeated_without_end(size, count):
    stream = io.BytesIO()
    torch.save({str(i): torch.zeros(1, dtype=torch.float64).expand(size) for i in range(count)}, stream)
    with pytest.raises(InputError, match=r"^x\.pt holds something else than tensors by name"):
        unpickled(stream.getvalue(), "x.pt")


def test_members_that_share_their_bytes_are_refused():
    stream = io.BytesIO(file_of())
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("archive/data/1", bytes(10_000))
        for number in range(2, 9):
            again = copy.copy(archive.getinfo("archive/data/1"))
            again.filename = f"archive/data/{number}"
            archive.filelist.append(again)
    with pytest.raises(InputError, match=r"^x\.pt has members that overlap: refused$"):
        unpickled(stream.getvalue(), "x.pt")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (file_of(**{"archive/byteorder": b"big"}), "big-endian"),
        (file_of(**{"archive/data.pkl": b"\x80\x02."}), "pop from empty list"),
        (file_of().replace(b"K\x02\x85", b"K\x01\x85"), "Bad CRC-32"),
    ],
)
def test_what_is_wrong_is_said(content, says):
    with pytest.raises(InputError, match=says):
        unpickled(content, "x.pt")


def test_a_tensor_that_is_conjugated_is_not_read_as_one_that_is_not():
    stream = io.BytesIO()
    torch.save({"a": torch.ones(2, dtype=torch.complex64).conj()}, stream)
    with pytest.raises(InputError, match="conjugated"):
        unpickled(stream.getvalue(), "x.pt")
