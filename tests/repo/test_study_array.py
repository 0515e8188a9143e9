"""The SLURM array script of a study, in the environment that sbatch gives each task."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pocketvit.studies.definition.study_file import load_study

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs" / "examples" / "study_array.sh"


def run(folder: Path, script: str, program: str, task: int | None) -> subprocess.CompletedProcess:
    """The script, where `pocketvit` is a program of ours."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / "pocketvit").write_text(f"#!/bin/bash\n{program}\n")
    (folder / "bin" / "pocketvit").chmod(0o755)
    slurm = {} if task is None else {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_JOB_ID": "7", "SLURM_JOB_ID": "8"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")} | slurm
    environment["PATH"] = f"{folder / 'bin'}:{environment['PATH']}"
    return subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True)


def test_each_task_trains_its_row_and_the_rest_is_gathered(tmp_path):
    script, study = SCRIPT.read_text(), load_study(ROOT / "docs" / "examples" / "my_study.yaml", allow_code=True)
    rows = re.search(r"rows=\((.*)\)", script)[1].split()
    assert rows == [row.name for row in study.rows]
    assert re.search(r"--array=(\S+)", script)[1] == f"0-{len(rows) - 1}"
    file = "docs/examples/my_study.yaml --allow-code"
    said = [run(tmp_path, script, 'echo "$@"', task).stdout for task in (0, 1, None)]
    assert said == [
        f"study {file} --only plain --out runs/my-study-rows/plain\n",
        f"study {file} --only mine --out runs/my-study-rows/mine\n",
        f"study {file} --out runs/my-study --results runs/my-study-rows\n",
    ]
    beyond = run(tmp_path, script, "echo", 2)
    assert beyond.returncode != 0 and "--array goes beyond the rows" in beyond.stderr and not beyond.stdout


@pytest.mark.long
def test_the_tables_are_made_of_what_the_tasks_have_trained(tmp_path):
    base = "{schedule.passes: 1, schedule.warmup_passes: 0, train.device: cpu, model.width: 32, model.depth: 1}"
    rows = "{plain: {}, mine: {model.num_cls_tokens: 2}}"
    (tmp_path / "s.yaml").write_text(f"recipe: digits\nbase: {base}\nseeds: 1\nbaseline: plain\nrows: {rows}\n")
    script = SCRIPT.read_text().replace("docs/examples/my_study.yaml", "s.yaml")
    program = f'exec {sys.executable} -m pocketvit "$@"'
    for task in (0, 1):
        done = run(tmp_path, script, program, task)
        assert done.returncode in (0, 3), done.stderr
    trained = {path.parent.name for path in tmp_path.glob("runs/my-study-rows/*/*/result.json")}
    assert len(trained) == 2
    done = run(tmp_path, script, program, None)
    assert done.returncode == 0 and "cannot be told" in done.stdout, done.stderr
    table = (tmp_path / "runs" / "my-study" / "table.md").read_text()
    assert table.count("| plain | 1 |") == table.count("| mine | 1 |") == 1
    assert not list(tmp_path.glob("runs/my-study/*-s0")), "nothing is trained again"
