"""The command line that a run's files tell, and where its code came from."""

import json
import sys
from importlib.metadata import PackageNotFoundError

import pytest

import pocketvit
from pocketvit.config import RunConfig, override
from pocketvit.runs import provenance
from pocketvit.runs.folder import RunFolder
from pocketvit.runs.provenance import command, versions


@pytest.mark.parametrize("program", ["/opt/env/bin/pocketvit", "/opt/env/lib/pocketvit/__main__.py"])
def test_the_command_is_one_that_can_be_typed(monkeypatch, program):
    monkeypatch.setattr(sys, "argv", [program, "train", "paper", "--data", "my images"])
    assert command() == "pocketvit train paper --data 'my images'"


def test_code_whose_original_cannot_be_looked_at_is_run_all_the_same(tmp_path):
    """As it is with a folder of another user's."""
    (tmp_path / "mine.py").write_text("def falling(progress):\n    return 1 - progress\n")
    config = override(RunConfig(), {"schedule.name": f"{tmp_path / 'mine.py'}:falling"})
    original = "/" + "x" * 300  # longer than the name of a file can be
    (tmp_path / "env.json").write_text(json.dumps({"code": {"mine.py": original}}))
    (line,) = RunFolder(tmp_path).code_notes(config)
    assert line.endswith(f"mine.py; its original {original} no longer exists")


def test_the_version_is_that_of_the_source_also_where_nothing_is_installed(monkeypatch):
    def absent(package):
        raise PackageNotFoundError(package)

    assert versions()["pocketvit"] == pocketvit.__version__ and "torch" in versions()
    monkeypatch.setattr(provenance, "version", absent)
    assert versions().keys() == {"python", "pocketvit"}
    assert versions()["pocketvit"] == pocketvit.__version__
