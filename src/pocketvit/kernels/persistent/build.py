"""Compile the CUDA sources with NVRTC, which comes with PyTorch.

A kernel is compiled for a number of tokens and a form of GELU when it is first wanted, in about a second, and kept beside
Triton's kernels (`TRITON_CACHE_DIR`, else `~/.triton/cache`).
"""

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from pocketvit.kernels.persistent.layout import Kernel

ARCHITECTURE = "sm_90a"
HEADERS = ("common.cuh", "instructions.cuh", "attention_backward.cuh")
OPTIONS = (f"-arch={ARCHITECTURE}", "-std=c++17")
GELU = (7.977177618e-01, 3.679828775e-02, -3.158118237e-04)
"""The polynomial p for which (1 + tanh(h p(h²))) / 2 is nearest to the normal distribution function Φ(h), h² held at 16
above 4: by 1.9e-5 everywhere. Found by Newton steps, each a linear program for the least greatest error."""


class Instance(NamedTuple):
    """What a kernel is compiled for."""

    kernel: Kernel
    num_tokens: int
    tanh: bool
    params_bytes: int

    @property
    def options(self) -> list[str]:
        """Of the compiler."""
        values = {f"GELU_{i}": f"{value:.9e}f" for i, value in enumerate(GELU)}
        values |= {"N": self.num_tokens, "TANH": int(self.tanh), "PARAMS_BYTES": self.params_bytes}
        values["SHARED_BYTES"] = self.kernel.shared_bytes(self.num_tokens)
        return [*OPTIONS, *(f"-D{name}={value}" for name, value in values.items())]


_lock, _threads = Lock(), ThreadPoolExecutor(2, "nvrtc")
_made: dict[Instance, Future[bytes]] = {}


def missing() -> str | None:
    """None if kernels can be compiled; else the reason why not."""
    try:
        _nvrtc_version()
    except (ImportError, RuntimeError, OSError) as error:
        return f"NVRTC cannot be loaded ({str(error).splitlines()[0]})"
    return None


@cache
def _nvrtc_version() -> tuple[int, ...]:
    nvrtc = bindings("nvrtc")

    return tuple(checked(nvrtc.nvrtcVersion()))


def cubin(instance: Instance) -> bytes:
    """The machine code, compiled if it is not in the cache."""
    return ahead(instance).result()


def ahead(instance: Instance) -> Future[bytes]:
    """The same, in another thread."""
    with _lock:
        if instance not in _made:
            _made[instance] = _threads.submit(_cubin, instance)
        return _made[instance]


def _cubin(instance: Instance) -> bytes:
    from triton.runtime.cache import get_cache_manager

    texts = {name: _text(name) for name in (instance.kernel.source, *HEADERS)}
    key = hashlib.sha256(repr((texts, instance.options, _nvrtc_version())).encode()).hexdigest()
    manager, file_name = get_cache_manager(key), f"{instance.kernel.name}.cubin"
    if path := manager.get_file(file_name):
        return Path(path).read_bytes()
    code = compiled(texts, instance)
    manager.put(code, file_name)
    return code


def _text(name: str) -> str:
    return (files("pocketvit.kernels.persistent") / name).read_text()


def compiled(texts: dict[str, str], instance: Instance) -> bytes:
    """A source and what it includes, by file name, as machine code."""
    nvrtc = bindings("nvrtc")

    (name, text), *headers = texts.items()
    header_names, header_texts = ([part.encode() for part in pair] for pair in zip(*headers, strict=True))
    program = checked(nvrtc.nvrtcCreateProgram(text.encode(), name.encode(), len(headers), header_texts, header_names))[
        0
    ]
    try:
        options = [option.encode() for option in instance.options]
        (result,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
        if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            log = bytes(checked(nvrtc.nvrtcGetProgramLogSize(program))[0])  # NVRTC writes into it
            nvrtc.nvrtcGetProgramLog(program, log)
            raise RuntimeError(f"{name} does not compile:\n{log.decode()}")
        code = bytes(checked(nvrtc.nvrtcGetCUBINSize(program))[0])
        checked(nvrtc.nvrtcGetCUBIN(program, code))
        return code
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def bindings(library: str) -> Any:
    """A library of CUDA's, `nvrtc` or `driver`, through the bindings that PyTorch requires (`cuda-bindings`)."""
    return import_module(f"cuda.bindings.{library}")


def checked(answer: tuple[Any, ...]) -> tuple[Any, ...]:
    """The result of a CUDA call, after its error code."""
    error, *values = answer
    if error.value:
        raise RuntimeError(f"CUDA error: {error.name}")
    return tuple(values)
