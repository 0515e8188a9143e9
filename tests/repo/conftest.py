"""The scripts in benchmarks/, as modules."""

import importlib
from collections.abc import Callable
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def benchmark_script() -> Callable[[str], ModuleType]:
    """Imports a script by its name."""
    return lambda name: importlib.import_module(f"benchmarks.{name}")
