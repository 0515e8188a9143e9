"""Files of PyTorch's own format, as torch.save writes them since version 1.6: a zip with a pickle and a member for each storage.

A pickle could run any code. `torch.load(weights_only=True)` runs none, but a small file makes it hang, crash or fill the
memory: it hashes tuples within tuples, and calls functions that take memory. So the tensors are made here.

Source: https://github.com/pytorch/pytorch/blob/main/torch/_utils.py, the functions that a file names
Differs: only tensors are made; other objects that a training script may save beside them become None.
"""

import io
import pickle
import zipfile
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pocketvit.data.pixels import one_line
from pocketvit.data.unpickler import RestrictedUnpickler
from pocketvit.errors import InputError

WRAPPERS = ("model", "state_dict")  # keys under which training scripts put a model's tensors


def unpickled(content: bytes, where: str) -> dict[str, Tensor]:
    """The tensors in a file of PyTorch's own format.

    They take no more memory than the file, and at most twice as much if those that share or repeat their numbers are copied.

    Args:
        where: name of the file in messages.
    Raises:
        InputError: another format or content, or anything but tensors by name.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except Exception as error:  # BadZipFile and others, depending on where it is broken
        raise InputError(
            f"{where} is not a file that torch.save writes since PyTorch 1.6; save it again, or as .safetensors"
        ) from error
    if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
        raise InputError(f"{where} is compressed, which PyTorch's files are not: refused")
    if sum(info.file_size for info in archive.infolist()) > len(content):
        raise InputError(f"{where} has members that overlap: refused")
    try:
        found = TensorUnpickler(archive).load()
    except Exception as error:  # as in cifar.py, a broken pickle raises anything
        raise InputError(
            f"{where} holds more than tensors, or is damaged ({one_line(error)}); save the model's state_dict() alone"
        ) from error
    for wrapper in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    if (
        not isinstance(found, Mapping)
        or not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in found.items())
        or sum(tensor.numel() * tensor.itemsize for tensor in found.values()) > 2 * len(content)  # nbytes overflows
    ):
        raise InputError(f"{where} holds something else than tensors by name; save the model's state_dict() alone")
    return dict(found)


def _nothing(*_: object) -> None:
    """Replaces what is no ordinary tensor."""


def _empty() -> dict[Any, Any]:
    """Replaces `OrderedDict`, which could be given one to copy, and so take memory."""
    return {}


def _tensor(storage: Tensor, offset: int, size: Any, stride: Any, _grad: Any, _hooks: Any, flags: Any = None) -> Tensor:
    """Replaces `_rebuild_tensor_v2`: numbers of a storage in a shape, which PyTorch checks to be within it."""
    if flags:
        raise InputError("a tensor is conjugated or negated")
    return storage.as_strided(size, stride, offset)


def _typed(
    storage: Tensor, offset: int, size: Any, stride: Any, _grad: Any, _hooks: Any, kind: Any, *flags: Any
) -> Tensor:
    """Replaces `_rebuild_tensor_v3`, which is for types without a storage of their own."""
    return _tensor(storage.view(kind), offset, size, stride, _grad, _hooks, *flags)


def _parameter(tensor: Tensor, _grad: bool, _hooks: object) -> Tensor:
    """Replaces `_rebuild_parameter`."""
    return tensor


_STORAGES = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool, "ComplexDouble": torch.complex128, "ComplexFloat": torch.complex64,
}  # fmt: skip
_STAND_INS = {
    ("collections", "OrderedDict"): _empty,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _typed,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch.storage", "UntypedStorage"): torch.uint8,
    **{("torch", f"{name}Storage"): kind for name, kind in _STORAGES.items()},
    **{("torch", str(kind).removeprefix("torch.")): kind for kind in vars(torch).values() if isinstance(kind, torch.dtype)},
    **dict.fromkeys(
        (
            ("torch", "Size"), ("torch", "device"), ("torch.serialization", "_get_layout"),
            ("torch._utils", "_rebuild_sparse_tensor"), ("__builtin__", "set"), ("builtins", "set"), ("_codecs", "encode"),
        ),
        _nothing,
    ),
}  # fmt: skip


class TensorUnpickler(RestrictedUnpickler):
    """Unpickles plain values, and tensors whose numbers are in other members of an archive."""

    stand_ins = _STAND_INS
    wanted = "tensors"
    # A state is told to what becomes None, and to a state dict, whose versions are not needed.
    dispatch = RestrictedUnpickler.dispatch | {pickle.BUILD[0]: lambda unpickler: unpickler.stack.pop()}

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive
        self.folder = archive.namelist()[0].partition("/")[0]
        self.storages: dict[str, Tensor] = {}
        if f"{self.folder}/byteorder" in archive.namelist() and self._member("byteorder") != b"little":
            raise InputError("its numbers are big-endian")
        super().__init__(io.BytesIO(self._member("data.pkl")), encoding="utf-8")

    def persistent_load(self, pid: Any) -> Tensor:
        """The numbers of a storage, by its type and its member's name."""
        _, kind, key, _, _ = pid
        if key not in self.storages:
            numbers = self._member("data/" + key)
            buffer = bytearray(numbers or b"\0")  # which may not be empty
            self.storages[key] = torch.frombuffer(buffer, dtype=torch.uint8)[: len(numbers)]
        return self.storages[key].view(kind)

    def _member(self, name: str) -> bytes:
        return self.archive.read(f"{self.folder}/{name}")
