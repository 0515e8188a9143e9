"""Choosing between implementations of the same function."""

import pytest
import torch

from pocketvit.errors import InputError
from pocketvit.kernels.launch import Choice, choose


def reasons(**given: str | None):
    """Implementations, the fastest first, that give these reasons."""
    return {name: lambda reason=reason: reason for name, reason in given.items()}


@pytest.mark.parametrize(
    ("kernels", "offered", "choice"),
    [
        ("auto", {"new": None, "fused": None}, Choice("new", None)),
        ("auto", {"new": "too wide", "fused": None}, Choice("fused", "too wide")),
        ("auto", {"new": "too wide", "fused": "no GPU"}, Choice("reference", "too wide")),
        ("fused", {"new": None, "fused": None}, Choice("fused", None)),
        ("new", {"new": None, "fused": "no GPU"}, Choice("new", None)),
        ("reference", {"new": None, "fused": None}, Choice("reference", "train.kernels=reference")),
    ],
)
def test_the_first_that_is_supported_runs_or_the_one_named(kernels, offered, choice):
    assert choose("this", kernels, reasons(**offered)) == choice


def test_one_that_is_not_wanted_is_not_asked():
    def fails() -> str:
        raise AssertionError("asked")

    assert choose("this", "fused", {"new": fails, **reasons(fused=None)}).name == "fused"
    assert choose("this", "auto", {**reasons(fused=None), "slower": fails}).name == "fused"
    assert choose("this", "reference", {"new": fails}).name == "reference"


def test_one_that_is_named_runs_or_says_why_not():
    offered = reasons(new="too wide", fused=None)
    with pytest.raises(InputError, match="^kernels='new' is not supported for this: too wide; use auto$"):
        choose("this", "new", offered)
    assert choose("this", "new", offered, fall_back=True) == Choice("reference", "too wide")
    with pytest.raises(InputError, match="^kernels='old': must be one of auto, new, fused, reference$"):
        choose("this", "old", offered, fall_back=True)


def test_choosing_breaks_no_graph():
    def double(x: torch.Tensor) -> torch.Tensor:
        return 2 * x if choose("this", "auto", {"fused": lambda: "no GPU"}).name == "reference" else x

    compiled = torch.compile(double, fullgraph=True, backend="eager")
    assert compiled(torch.ones(3)).tolist() == [2, 2, 2]
