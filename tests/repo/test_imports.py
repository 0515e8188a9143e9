"""Imports point one way, and heavy ones happen late."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "pocketvit"
LAYERS = (
    {"errors", "files", "randomness", "terminal", "process", "lock", "memory", "device", "usercode", "tables"},
    {"config"},
    {"kernels"},
    {"data", "optim", "recipes"},
    {"augment", "runs"},
    {"loading", "model"},
    {"objectives", "inference", "report"},
    {"training", "interpret"},
    {"studies", "bench", "doctor", "demo"},
    {"cli", "__init__", "__main__"},
)
"""The parts of the package, from the ground up. A part may import itself and the layers below its own."""
GROUND = {"files": {"errors"}, "lock": {"errors"}, "device": {"errors", "memory"}, "usercode": {"errors", "files"}}
"""What a part of the lowest layer may import; the others import nothing of the package."""
WITHOUT_TORCH = {"report", "config", "recipes", "errors", "files", "terminal", "process", "lock", "usercode", "tables"}
"""Parts that never import torch themselves."""
ORACLES = {"torchvision", "timm"}
OUTSIDE = {"reproduction", "benchmarks", "tests"}


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


def may_import(part: str) -> set[str]:
    """The parts of the package that files of `part` may import, besides itself."""
    level = next(level for level, parts in enumerate(LAYERS) if part in parts)
    if level == 0:
        return GROUND.get(part, set())
    if level == len(LAYERS) - 1:
        return set().union(*LAYERS)
    return set().union(*LAYERS[:level])


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    part = part_of(path)
    names = imports(path)
    top = {name.split(".")[0] for name in names}
    assert not top & ORACLES, "test oracles stay in the tests"
    assert not top & OUTSIDE, "the package stands without the scripts beside it"
    assert not (part in WITHOUT_TORCH and "torch" in top), f"{part} works without torch"
    ours = {name.split(".")[1] for name in names if name.startswith("pocketvit.")}
    allowed = may_import(part) | {part, "__version__"}
    assert ours <= allowed, f"{path} may not import {ours - allowed}"


def test_every_part_has_its_layer():
    assert {part_of(path) for path in FILES} <= set().union(*LAYERS)
    assert sum(map(len, LAYERS)) == len(set().union(*LAYERS))


def test_only_one_file_touches_process_groups():
    users = {path for path in FILES if any(name.startswith("torch.distributed") for name in imports(path))}
    assert users == {PACKAGE / "training" / "distributed.py"}


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_package_and_its_help_leave_torch_alone():
    code = "import sys, pocketvit, pocketvit.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\n"
    assert run(code + "print('torch' in sys.modules)").splitlines()[-1] == "False"
    train_help = "import sys, pocketvit.cli as c\ntry: c.main(['train', '--help'])\nexcept SystemExit: pass\n"
    assert run(train_help + "print('torch' in sys.modules)").splitlines()[-1] == "False"


def test_reports_are_made_and_results_read_without_torch():
    code = "import sys, pocketvit.report.page, pocketvit.runs.result; print('torch' in sys.modules)"
    assert run(code).splitlines()[-1] == "False"


def test_a_studys_workers_load_no_more_than_they_need():
    code = "import sys, pocketvit.studies.execution.worker; print({'matplotlib', 'scipy.optimize'} & set(sys.modules))"
    assert run(code).splitlines()[-1] == "set()"


def test_a_run_on_the_cpu_leaves_pytorchs_compiler_and_scikit_learn_alone(tmp_path):
    """Importing the first takes longer than a short run, the other most of a second."""
    code = (
        "import sys, pocketvit\n"
        "values = {'schedule.passes': 1, 'schedule.warmup_passes': 0, 'train.device': 'cpu', 'model.depth': 1}\n"
        f"values['out'] = {str(tmp_path / 'run')!r}\n"
        "pocketvit.train(pocketvit.override(pocketvit.recipe('digits'), values))\n"
        "print({'torch._dynamo', 'sklearn'} & set(sys.modules))\n"
    )
    assert run(code).splitlines()[-1] == "set()"


def test_help_answers_at_once():
    """It computes for a seventh of a second, however busy the machine is, and loads no large library."""

    def computed_s() -> float:
        before = os.times()
        subprocess.run([sys.executable, "-m", "pocketvit", "--help"], check=True, capture_output=True)
        after = os.times()
        return sum(getattr(after, part) - getattr(before, part) for part in ("children_user", "children_system"))

    assert min(computed_s() for _ in range(3)) < 1.0
    code = "import sys, pocketvit.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\nprint(*sys.modules)"
    loaded = set(run(code).splitlines()[-1].split())
    assert "tyro" in loaded
    large = {"torch", "numpy", "scipy", "sklearn", "matplotlib", "PIL", "safetensors", "jinja2", "yaml", "pyarrow"}
    assert not loaded & large


def test_public_names_exist():
    import pocketvit

    for name in pocketvit.__all__:
        assert getattr(pocketvit, name) is not None
    with pytest.raises(AttributeError):
        pocketvit.no_such_name  # noqa: B018
