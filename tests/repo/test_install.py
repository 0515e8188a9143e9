"""What the make targets install, and say before it."""

import re
import runpy
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def lines():
    return runpy.run_path(str(ROOT / "dev" / "before_install.py"))["lines"]


@pytest.mark.parametrize("target", ["train", "test", "test-long"])
def test_a_linux_without_a_gpu_is_told_of_the_cpu_build(lines, target):
    said = "\n".join(lines(target, "linux", gpu=False, torch=False))
    assert "6 GB on disk" in said and "No NVIDIA GPU was found" in said
    assert f"\n    make {target} TORCH='torch torchvision --index-url ADDRESS'\n" in said


@pytest.mark.parametrize(
    ("machine", "size"),
    [(("linux", True, False), "6 GB"), (("darwin", False, False), "1.5 GB"), (("linux", False, True), "0.2 GB")],
    ids=["a GPU", "a Mac", "PyTorch is there"],
)
def test_others_are_told_what_it_costs_alone(lines, machine, size):
    said = "\n".join(lines("train", *machine))
    assert size in said and "TORCH=" not in said and "No NVIDIA GPU" not in said


def test_every_target_that_installs_says_so_first():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert set(re.findall(r"\$\(call install,([\w-]+)\)", makefile)) == {"train", "test", "test-long", "docs"}
    recipe = makefile.partition("define install\n")[2].partition("endef")[0]
    assert recipe.index("dev/before_install.py $(1)") < recipe.index("--editable") and "--quiet" not in recipe


def test_the_lowest_versions_are_found_for_every_dependency(capsys):
    script = runpy.run_path(str(ROOT / "dev" / "lowest.py"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    script["main"]()
    constraints = capsys.readouterr().out.splitlines()
    assert len(constraints) == sum(not name.startswith("pocketvit") for name in named)
    assert all(re.fullmatch(r"[\w-]+==[\d.]+(\.\*)?", line) for line in constraints)
    assert script["lowest"]("some-name[extra]>=1.2,<1.5") == "some-name==1.2.*"
    assert script["lowest"]("name>=1.2.3") == "name==1.2.3"
