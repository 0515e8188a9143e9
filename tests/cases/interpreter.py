"""Running kernels in Triton's interpreter, which needs no GPU.

Triton reads TRITON_INTERPRET when it is first imported. So tests marked `in_interpreter` are skipped in an ordinary
run, and one test of each kernel, marked `natively`, runs them in a process of their own.
"""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pocketvit.kernels.launch import INTERPRETED

TESTS = Path(__file__).parents[1]
in_interpreter = pytest.mark.skipif(not INTERPRETED, reason="run in Triton's interpreter by the kernel's own test")
natively = pytest.mark.skipif(INTERPRETED, reason="needs no interpreter")


def assert_green_in_the_interpreter(*files: str, marks: str = "not gpu and not long") -> None:
    """Run test files, given relative to the tests' folder, with kernels interpreted."""
    paths = [str(TESTS / file) for file in files]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", marks, "-p", "no:cacheprovider", *paths],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def quicken() -> None:
    """Spare Triton's interpreter two thirds of its time; it computes the same.

    Before each function that a kernel calls, it puts what it interprets in place of all of `triton.language`, which it
    has done before the kernel. And it works out whether an integer overflows, but says so only while debugging.
    """
    import triton.language as tl
    from triton.runtime import interpreter

    patch, builder = interpreter._patch_lang, interpreter.interpreter_builder
    nothing = getattr(interpreter, "_LangPatchScope", lambda: None)  # older versions restore nothing

    def patch_once(fn: Any) -> Any:
        seen = [value for value in fn.__globals__.values() if value is tl or value is tl.core]
        return patch(fn) if any(tl.core.is_builtin(each.load) for each in seen) else nothing()

    interpreter._patch_lang = patch_once
    assert not builder.options.debug
    builder.options = replace(builder.options, sanitize_overflow=False)


if INTERPRETED:
    quicken()
