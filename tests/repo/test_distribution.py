"""What is handed out: the sdist passes its own tests, the wheel holds the package whole and nothing else."""

import os
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import pocketvit

ROOT = Path(__file__).parents[2]
QUICK = ["tests/repo", "tests/unit/config", "tests/unit/reproduction", "tests/unit/runs"]
"""The tests that read the docs, the results, scripts and the reproduction, which lie outside src/, and some others."""

pytestmark = pytest.mark.nightly


def run(command: list[str], folder: Path, *path: Path) -> str:
    """What a command prints; of Python files, it finds those in `path` alone."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5_000:] + done.stderr[-5_000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with an sdist, and a wheel made from that, without asking any package index."""
    out = tmp_path_factory.mktemp("built")
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)], out)
    return out


@pytest.fixture(scope="module")
def source(built, tmp_path_factory) -> Path:
    """The sdist, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    (file,) = built.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.iterdir()
    assert unpacked.name == f"pocketvit-{pocketvit.__version__}"
    return unpacked


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> Path:
    """The wheel, unpacked as an installation has it."""
    folder = tmp_path_factory.mktemp("wheel")
    (file,) = built.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder)
    return folder


def files(folder: Path) -> set[str]:
    """Paths of the files in a folder, but for what Python and its tools leave there."""
    left = {"__pycache__", ".pytest_cache", ".ruff_cache", ".hypothesis"}
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and not left & set(p.parts)}


def test_the_sdist_holds_the_sources_of_everything(source):
    for folder in ("src", "tests", "reproduction", "benchmarks", "results", "docs", "dev"):
        assert files(source / folder) == files(ROOT / folder)
    for file in (
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "CITATION.cff",
        "LICENSE",
        "Makefile",
        "pyproject.toml",
    ):
        assert (source / file).read_bytes() == (ROOT / file).read_bytes()


def test_the_tests_pass_from_the_sdist(source):
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not gpu and not long", *QUICK]
    assert " passed" in run(command, source, source / "src")


def test_the_wheel_holds_the_package_and_its_data_alone(installed):
    about = f"pocketvit-{pocketvit.__version__}.dist-info"
    assert {path.name for path in installed.iterdir()} == {"pocketvit", about}
    assert files(installed / "pocketvit") == files(ROOT / "src" / "pocketvit")
    kinds = {Path(name).suffix for name in files(installed / "pocketvit")}
    assert {".py", ".j2", ".css", ".yaml"} <= kinds
    about = Parser().parsestr((installed / about / "METADATA").read_text(encoding="utf-8"))
    assert about["Version"] == pocketvit.__version__ and about["License-Expression"] == "MIT"


def test_the_wheel_is_small(built):
    """Also with the models that come with it."""
    (wheel,) = built.glob("*.whl")
    assert wheel.stat().st_size < 8e6


def test_the_wheel_trains_and_writes_its_page(installed, tmp_path):
    short = ["--schedule.passes", "1", "--schedule.warmup-passes", "0", "--model.depth", "1", "--train.device", "cpu"]
    command = [sys.executable, "-m", "pocketvit", "train", "digits", *short, "--out", "run"]
    assert "report: run/report.html" in run(command, tmp_path, installed)
    where = "import pocketvit; print(pocketvit.__file__)"
    assert run([sys.executable, "-c", where], tmp_path, installed).startswith(str(installed))
    assert "paper-table2" in run([sys.executable, "-m", "pocketvit", "study", "--help"], tmp_path, installed)
