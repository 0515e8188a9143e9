"""Running kernels in Triton's interpreter, which needs no GPU.

Triton reads TRITON_INTERPRET when it is first imported. So tests marked `in_interpreter` are skipped in an ordinary
run, and one test of each kernel, marked `natively`, runs them in a process of their own.
"""

import os
import subprocess
import sys
from pathlib import Path

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
