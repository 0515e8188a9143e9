"""Imports point one way, and heavy ones happen late."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "pocketvit"
BASE = {"errors", "files", "usercode", "checks", "randomness", "config"}
ALLOWED = {
    "errors": set(),
    "terminal": set(),
    "files": {"errors"},
    "lock": {"errors"},
    "usercode": {"errors", "files"},
    "checks": {"errors", "files", "usercode"},
    "randomness": set(),
    "config": {"errors", "files", "usercode", "checks"},
    "recipes": BASE,
    "kernels": BASE,
    "model": BASE | {"recipes", "kernels"},
    "optim": BASE | {"kernels"},
    "data": BASE | {"kernels", "lock"},
    "report": {"errors", "files"},
    "training": BASE | {"recipes", "kernels", "model", "optim", "data", "report", "terminal", "lock"},
    "bench": BASE | {"recipes", "kernels", "model", "optim", "data", "report", "training"},
    "studies": BASE | {"recipes", "data", "report", "training", "terminal", "lock"},
}
"""What each part may import of the package, beside itself; cli and __init__ may import anything."""
ORACLES = {"torchvision", "timm"}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names if node.module == "pocketvit"}
    return found


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    part = part_of(path)
    names = imports(path)
    assert not {name.split(".")[0] for name in names} & ORACLES, "test oracles stay in the tests"
    if part in ("cli", "__init__", "__main__"):
        return
    ours = {name.split(".")[1] for name in names if name.startswith("pocketvit.")}
    assert ours <= ALLOWED[part] | {part}, f"{path} may not import {ours - ALLOWED[part] - {part}}"


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_package_and_its_help_leave_torch_alone():
    code = "import sys, pocketvit, pocketvit.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\n"
    assert run(code + "print('torch' in sys.modules)").splitlines()[-1] == "False"
    train_help = "import sys, pocketvit.cli as c\ntry: c.main(['train', '--help'])\nexcept SystemExit: pass\n"
    assert run(train_help + "print('torch' in sys.modules)").splitlines()[-1] == "False"


def test_a_studys_workers_load_no_more_than_they_need():
    code = "import sys, pocketvit.studies.worker; print({'matplotlib', 'scipy.optimize'} & set(sys.modules))"
    assert run(code).splitlines()[-1] == "set()"


def test_a_run_on_the_cpu_leaves_pytorchs_compiler_alone(tmp_path):
    """Importing it takes longer than a short run."""
    code = (
        "import sys, pocketvit\n"
        "values = {'schedule.passes': 1, 'schedule.warmup_passes': 0, 'train.device': 'cpu', 'model.depth': 1}\n"
        f"values['out'] = {str(tmp_path / 'run')!r}\n"
        "pocketvit.train(pocketvit.override(pocketvit.recipe('digits'), values))\n"
        "print('torch._dynamo' in sys.modules)\n"
    )
    assert run(code).splitlines()[-1] == "False"


def test_help_answers_in_under_a_second():
    def seconds() -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "pocketvit", "--help"], check=True, capture_output=True)
        return time.perf_counter() - began

    assert min(seconds() for _ in range(3)) < 1.0


def test_public_names_exist():
    import pocketvit

    for name in pocketvit.__all__:
        assert getattr(pocketvit, name) is not None
    with pytest.raises(AttributeError):
        pocketvit.no_such_name  # noqa: B018
