"""The documents say what the files say."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pocketvit.config import flatten
from pocketvit.recipes import RECIPES, recipe

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture(scope="module")
def tables():
    """benchmarks/tables.py as a module."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import tables

        yield tables
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def test_every_table_is_the_one_made_from_the_results(tables):
    from pocketvit.report import replace_section

    for document, studies in tables.PLACES.items():
        text = (ROOT / document).read_text()
        for study in studies:
            assert replace_section(text, study, tables.table(study)) == text, "run python benchmarks/tables.py"


def test_committed_results_belong_to_the_configurations_they_stand_for(tables):
    """Each result's config hash is that of its row in benchmarks/, on the data it was run on."""
    from pocketvit.config import config_hash
    from pocketvit.studies import load_study

    for study, file in tables.STUDIES.items():
        for cell in load_study(ROOT / "benchmarks" / file).cells():
            result = json.loads((ROOT / "results" / study / f"{cell.name}.json").read_text())
            assert result["config_hash"] == config_hash(cell.config, result["data_fingerprint"]), cell.name
            assert result["seed"] == cell.seed


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_fields_and_flags_in_the_documents_exist(document):
    known = set(flatten(recipe("paper")))
    text = document.read_text()
    for flag in re.findall(r"--((?:model|data|augment|optim|schedule|train)\.[a-z-]+)", text):
        assert flag.replace("-", "_") in known, flag
    for field in re.findall(r"`((?:model|data|augment|optim|schedule|train)\.[a-z_]+)", text):
        if not field.endswith((".py", ".safetensors")):
            assert field in known, field


def test_every_recipe_is_in_the_help():
    done = subprocess.run([sys.executable, "-m", "pocketvit"], capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in RECIPES)


def test_the_readmes_python_runs(tmp_path):
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    code = code.replace('"schedule.passes": 20', '"schedule.passes": 2, "schedule.warmup_passes": 1')
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 0 < float(done.stdout.split()[0]) < 1


def test_the_readmes_commands_are_understood(monkeypatch):
    """Every `pocketvit train` line of the documents parses, in the repository's folder."""
    monkeypatch.chdir(ROOT)
    from pocketvit.cli import parse_train

    lines = [line for path in DOCUMENTS for line in re.findall(r"pocketvit train[^#`|\n]*", path.read_text())]
    assert len(lines) > 5
    for line in lines:
        words = line.replace("SEED", "0").split()[2:]
        if not {"--config", "--resume", "--help"} & set(words):
            parse_train(words)
