"""Launching the two kernels by CUDA's driver, and the tensor maps by which they find tokens in memory."""

import ctypes
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pocketvit.kernels.persistent.build import Instance, checked, cubin

THREADS = 384
MAP_BYTES = 128


class Box(NamedTuple):
    """A tensor as rows of tokens, and the piece of it that one copy moves."""

    tensor: Tensor
    """Contiguous, (…, width), bfloat16."""
    tokens: int
    """Of a box, which is 64 channels wide."""

    @property
    def sizes(self) -> tuple[int, int]:
        """Numbers of a row, and rows."""
        width = self.tensor.shape[-1]
        return width, self.tensor.numel() // width


def encoded(box: Box) -> bytes:
    """A box as a tensor map: in shared memory its rows are 128 bytes, swizzled."""
    from cuda.bindings import driver

    width, num_rows = box.sizes
    (made,) = checked(
        driver.cuTensorMapEncodeTiled(
            driver.CUtensorMapDataType.CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            2,
            box.tensor.data_ptr(),
            [driver.cuuint64_t(width), driver.cuuint64_t(num_rows)],
            [driver.cuuint64_t(2 * width)],
            [driver.cuuint32_t(64), driver.cuuint32_t(box.tokens)],
            [driver.cuuint32_t(1), driver.cuuint32_t(1)],
            driver.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
            driver.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_128B,
            driver.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            driver.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    )
    return ctypes.string_at(int(made.getPtr()), MAP_BYTES)


class Params(NamedTuple):
    """A kernel's parameters, in the order of the struct in its source."""

    maps: list[Box | None]
    """None where the kernel does not look."""
    pointers: list[Tensor | None]
    integers: list[int]
    floats: list[float]

    def size(self) -> int:
        """Bytes of the struct, whose maps lie at multiples of 64."""
        return (
            -(
                -(MAP_BYTES * len(self.maps) + 8 * len(self.pointers) + 4 * (len(self.integers) + len(self.floats)))
                // 64
            )
            * 64
        )

    def packed(self) -> bytes:
        """The struct."""
        maps = b"".join(bytes(MAP_BYTES) if box is None else encoded(box) for box in self.maps)
        pointers = [0 if tensor is None else tensor.data_ptr() for tensor in self.pointers]
        values = [*map(ctypes.c_uint64, pointers), *map(ctypes.c_int, self.integers), *map(ctypes.c_float, self.floats)]
        return (maps + b"".join(map(bytes, values))).ljust(self.size(), b"\0")


def launch(instance: Instance, params: Params, num_blocks: int) -> None:
    """Run a kernel on the current GPU and stream."""
    from cuda.bindings import driver

    struct = ctypes.create_string_buffer(params.packed())
    arguments = (ctypes.c_void_p * 1)(ctypes.addressof(struct))
    shared = instance.kernel.shared_bytes(instance.num_tokens)
    stream = torch.cuda.current_stream().cuda_stream
    function = _function(instance, torch.cuda.current_device())
    checked(
        driver.cuLaunchKernel(
            function, num_blocks, 1, 1, THREADS, 1, 1, shared, stream, ctypes.addressof(arguments), 0
        )
    )  # fmt: skip


@cache
def _function(instance: Instance, device: int) -> Any:
    """The kernel, loaded on the current GPU."""
    from cuda.bindings import driver

    (module,) = checked(driver.cuModuleLoadData(cubin(instance)))
    (function,) = checked(driver.cuModuleGetFunction(module, instance.kernel.name.encode()))
    most = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    checked(driver.cuFuncSetAttribute(function, most, instance.kernel.shared_bytes(instance.num_tokens)))
    return function
