"""Launch the kernels through CUDA's driver, with tensor maps by which they find tokens in memory."""

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pocketvit.kernels.persistent.build import Instance, bindings, checked, cubin

MAP_BYTES = 128


class Box(NamedTuple):
    """A tensor of tokens, and the piece of it that one copy moves."""

    tensor: Tensor
    """Contiguous, (rows, channels) or (layers, rows, channels), bfloat16. What a box has behind the last row is zero."""
    tokens: int  # rows of a box, which is 64 channels wide

    def geometry(self) -> tuple[list[int], list[int], list[int]]:
        """Sizes, bytes from one to the next of all but the innermost, and the box's sizes: the innermost first."""
        sizes = list(reversed(self.tensor.shape))
        strides = [2 * stride for stride in reversed(self.tensor.stride()[:-1])]
        return sizes, strides, [64, self.tokens, 1][: len(sizes)]


def encoded(box: Box) -> bytes:
    """A box as a tensor map: in shared memory its rows are 128 bytes, swizzled."""
    driver = bindings("driver")

    sizes, strides, piece = box.geometry()
    (made,) = checked(
        driver.cuTensorMapEncodeTiled(
            driver.CUtensorMapDataType.CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            len(sizes),
            box.tensor.data_ptr(),
            [driver.cuuint64_t(size) for size in sizes],
            [driver.cuuint64_t(stride) for stride in strides],
            [driver.cuuint32_t(size) for size in piece],
            [driver.cuuint32_t(1) for _ in sizes],
            driver.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
            driver.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_128B,
            driver.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            driver.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    )
    return ctypes.string_at(int(made.getPtr()), MAP_BYTES)


class Params(NamedTuple):
    """A kernel's parameters, in the order of the struct in its source."""

    maps: Sequence[Box | None]  # None if the kernel does not use it
    pointers: Sequence[Tensor | None]
    integers: Sequence[int]
    floats: Sequence[float]

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
    driver = bindings("driver")

    struct = ctypes.create_string_buffer(params.packed())
    arguments = (ctypes.c_void_p * 1)(ctypes.addressof(struct))
    kernel = instance.kernel
    shared = kernel.shared_bytes(instance.num_tokens)
    stream = torch.cuda.current_stream().cuda_stream
    function = _function(instance, torch.cuda.current_device())
    checked(
        driver.cuLaunchKernel(
            function, num_blocks, 1, 1, kernel.threads, 1, 1, shared, stream, ctypes.addressof(arguments), 0
        )
    )  # fmt: skip


@cache
def _function(instance: Instance, device: int) -> Any:
    """The kernel, loaded on the current GPU."""
    driver = bindings("driver")

    (module,) = checked(driver.cuModuleLoadData(cubin(instance)))
    (function,) = checked(driver.cuModuleGetFunction(module, instance.kernel.name.encode()))
    most = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    checked(driver.cuFuncSetAttribute(function, most, instance.kernel.shared_bytes(instance.num_tokens)))
    return function
