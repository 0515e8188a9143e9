"""The documents say what the files say."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pocketvit.config import flatten
from pocketvit.inference.trained_model import TrainedModel
from pocketvit.model import create_model
from pocketvit.recipes import RECIPES, about, recipe
from pocketvit.tables import mean_and_spread

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture(scope="module")
def tables(benchmark_script):
    """benchmarks/tables.py as a module."""
    return benchmark_script("tables")


def test_every_table_is_the_one_made_from_the_results(tables):
    from benchmarks.run_tables import replace_section

    for document, studies in tables.PLACES.items():
        text = (ROOT / document).read_text()
        for study in studies:
            assert replace_section(text, study, tables.table(study)) == text, "run python -m benchmarks.tables"


def test_committed_results_belong_to_the_configurations_they_stand_for(tables):
    """Each result's config hash is that of its row in benchmarks/, on the data it was run on."""
    from pocketvit.config import config_hash
    from pocketvit.studies import load_study

    for study, file in tables.STUDIES.items():
        for cell in load_study(ROOT / "benchmarks" / file).cells():
            result = json.loads((ROOT / "results" / study / f"{cell.name}.json").read_text())
            assert result["config_hash"] == config_hash(cell.config, result["data_fingerprint"]), cell.name
            assert result["seed"] == cell.seed


def test_results_of_every_study_are_named_by_the_rows_they_belong_to(tables):
    """Also those of studies that are not wholly run; a run's file is `<row>-s<seed>.json` in its study's folder.

    Runs from before a revision of their method stay until they are run again.
    """
    from pocketvit.config import config_hash
    from pocketvit.config.hashing import earlier_hashes
    from pocketvit.config.yaml_text import read_yaml
    from pocketvit.studies import load_study
    from pocketvit.studies.definition.choose import builtin_studies, find_study

    studies = {name: find_study(name) for name in builtin_studies()}
    for file in (ROOT / "benchmarks").rglob("*.yaml"):
        if read_yaml(file, "study")["recipe"] not in RECIPES:
            continue  # records whose recipe is not chosen yet
        study = load_study(file)
        studies[study.name] = study
    for name, study in studies.items():
        configs = {row.name: row.config for row in study.rows}
        for path in (ROOT / "results" / name).glob("*.json"):
            row, _, seed = path.stem.rpartition("-s")
            assert row in configs, f"{path}: study {name} has no such row"
            result = json.loads(path.read_text())
            now, data = configs[row], result["data_fingerprint"]
            assert result["config_hash"] in (config_hash(now, data), *earlier_hashes(now, data)), path
            assert result["seed"] == int(seed) and result["num_gpus"] <= 1, path


def test_speeds_on_several_gpus_are_of_the_runs_they_stand_for(tables):
    """scaling_tables.py checks names; here the configuration."""
    from benchmarks.scaling import speed_config
    from pocketvit.config import config_hash

    for path in (ROOT / "results" / "scaling" / "speed").glob("*.json"):
        result = json.loads(path.read_text())
        expected = config_hash(speed_config(result["batch_size"]), result["data_fingerprint"])
        assert result["config_hash"] == expected, path


def test_speeds_of_choices_are_of_the_models_they_stand_for(tables):
    """Each with the kernels on and off in the same call, and all that is needed to compare it."""
    from pocketvit import create_model

    for name, choice in tables.CHOICES.items():
        path = ROOT / "results" / "speed" / f"{name}.json"
        if not path.is_file():
            continue
        result = json.loads(path.read_text())
        assert result["choice"] == choice and result["num_gpus"] == 1, path
        model = create_model("paper", **{field.removeprefix("model."): value for field, value in choice.items()})
        assert result["num_params"] == model.num_params, path
        assert {"device", "versions", "command", "commit"} <= result.keys(), path
        measured = {(row["batch_size"], row["variant"]) for row in result["rows"]}
        assert {(256, "compiled"), (256, "fused"), (1024, "fused")} <= measured, path
        for row in result["rows"]:
            assert row["images_per_s_min"] <= row["images_per_s"] <= row["images_per_s_max"], path


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_fields_and_flags_in_the_documents_exist(document):
    known = set(flatten(recipe("paper")))
    text = document.read_text()
    for flag in re.findall(r"--((?:model|data|augment|objective|optim|schedule|train)\.[a-z-]+)", text):
        assert flag.replace("-", "_") in known, flag
    for field in re.findall(r"`((?:model|data|augment|objective|optim|schedule|train)\.[a-z_]+)", text):
        if not field.endswith((".py", ".safetensors", ".onnx", ".pt")):
            assert field in known, field


def test_contributors_find_every_command_that_measured_a_table():
    texts = "".join(path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    named = set(re.findall(r"[Mm]easured by `python -m (benchmarks\.\w+)", texts))
    known = (ROOT / "CONTRIBUTING.md").read_text()
    assert len(named) > 1 and not [name for name in named if f"python -m {name}" not in known]


def test_every_field_stands_in_the_list_of_all_fields():
    listed = re.findall(
        r"^\| `([a-z_.]+)` \| .+ \| .+ \| .+ \|$", (ROOT / "docs" / "configuration.md").read_text(), re.M
    )
    assert listed == list(flatten(recipe("paper")))


@pytest.mark.parametrize("arguments", [[], ["train", "--help"]])
def test_every_recipe_is_in_the_help(arguments):
    done = subprocess.run([sys.executable, "-m", "pocketvit", *arguments], capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in RECIPES)


def test_what_the_minute_changes_is_what_its_page_says():
    """Its table has every field that differs from the paper's, and the recipe's line its measured accuracy."""
    fields = {name: flatten(recipe(name)) for name in ("paper", "minute")}
    changed = {name for name, value in fields["minute"].items() if value != fields["paper"][name]}
    assert changed - {"recipe", "train.eval_every_passes"} == {
        "model.patch_size", "model.patch_stride", "model.activation", "optim.name", "batch_size", "schedule.passes",
        "schedule.warmup_passes",
    }  # fmt: skip
    table = re.search(r"\| \| `paper` \| `minute` .*?\n\n", (ROOT / "docs" / "minute.md").read_text(), re.DOTALL)[0]
    for field in ("batch_size", "schedule.passes", "schedule.warmup_passes"):
        assert re.search(rf"\| {fields['paper'][field]}\b.*\| {fields['minute'][field]}\b", table), field
    runs = [json.loads(path.read_text()) for path in (ROOT / "results" / "minute").glob("*.json")]
    assert mean_and_spread([100 * run["test_accuracy"] for run in runs]) in about("minute")


def test_the_words_mean_the_same_in_the_readme_and_on_the_first_page():
    here, there = (
        re.search(r"\| word \| meaning \|\n(\|.*\n)+", (ROOT / file).read_text())[0]
        for file in ("README.md", "docs/index.md")
    )
    assert here == there
    assert re.findall(r"^\| (\w+) ", here, re.MULTILINE) == ["word", "pass", "seed", "recipe", "run", "study"]
    (recipes,) = re.findall(r"^\| recipe .*", here, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", recipes)) == set(RECIPES)


def test_the_readmes_python_runs(tmp_path):
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    code = code.replace('"schedule.passes": 20', '"schedule.passes": 2, "schedule.warmup_passes": 1')
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    accuracy, speed = done.stdout.splitlines()[-2].split()
    assert 0 < float(accuracy) < 1 < float(speed)
    assert float(done.stdout.splitlines()[-1]) == float(accuracy), "what was trained is what is used"


def test_the_readmes_commands_are_understood(monkeypatch, tmp_path):
    """Every `pocketvit train` line of the documents parses, in the repository's folder; models that it names are made up."""
    model = tmp_path / "model.safetensors"
    TrainedModel(create_model("digits"), ("cat", "dog"), (0.5,) * 3, (0.2,) * 3).save(model)
    monkeypatch.chdir(ROOT)
    from pocketvit.cli import parse_train

    texts = [path.read_text().replace("\\\n", " ") for path in DOCUMENTS]
    lines = [line for text in texts for line in re.findall(r"pocketvit train[^#`|\n]*", text)]
    assert len(lines) > 5
    for line in lines:
        words = line.replace("SEED", "0").split()[2:]
        for flag in {"--init-from", "--objective.teacher"} & set(words):
            words[words.index(flag) + 1] = str(model)
        if words[:1] == ["finetune"]:  # looks at its images
            words[words.index("--data") + 1] = "digits"
        if "--track" in words:  # no field
            words = words[: words.index("--track")] + words[words.index("--track") + 2 :]
        if not {"--config", "--resume", "--help"} & set(words):
            parse_train(words)


def test_every_step_of_the_road_says_what_was_predicted():
    road = (ROOT / "docs" / "fast.md").read_text().partition("## The road")[2].partition("\n\nH100")[0]
    steps = [[cell.strip() for cell in line.split("|")[1:-1]] for line in road.splitlines() if line.startswith("| ")]
    assert len(steps) > 5 and all(len(step) == 3 and all(step) for step in steps), steps


def test_the_log_begins_with_the_newest_and_marks_failures_in_titles():
    log = (ROOT / "dev" / "LOG.md").read_text()
    dates = re.findall(r"^## (\d{4}-\d\d-\d\d)\b", log, re.MULTILINE)
    assert dates == sorted(dates, reverse=True) and len(set(dates)) > 3
    titles = re.findall(r"^### (.+)", log, re.MULTILINE)
    assert sum("failed" in title for title in titles) > 10 and not re.search(r"^\*\*", log, re.MULTILINE)


@pytest.mark.parametrize(
    ("before", "srun", "restarts", "started", "requeued"),
    [
        (False, "exit 1", "0", True, True),
        (False, "exit 1", "10", True, False),
        (False, "exit 0", "0", True, False),
        (False, "touch run/result.json; exit 1", "0", True, False),
        (True, "exit 1", "0", False, False),
    ],
    ids=["cut off", "too often", "well", "failed after its end", "finished before"],
)
def test_the_slurm_script_puts_only_an_unfinished_run_back(tmp_path, before, srun, restarts, started, requeued):
    script = re.search(r"```sh\n(#!/bin/bash\n#SBATCH.*?)```", (ROOT / "docs" / "scaling.md").read_text(), re.DOTALL)[1]
    (tmp_path / "run").mkdir()
    if before:
        (tmp_path / "run" / "result.json").touch()
    programs = {"srun": f"echo srun >> log; {srun}", "scontrol": 'echo "$1" >> log'}
    for name, body in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "job.sh").write_text(script.replace("/shared/runs/paper-8", "run"))
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_RESTART_COUNT": restarts, "SLURM_JOB_ID": "7"}
    ended = subprocess.run(["bash", "job.sh"], cwd=tmp_path, env=env, check=False)
    log = (tmp_path / "log").read_text().split() if (tmp_path / "log").exists() else []
    assert ("srun" in log, "requeue" in log) == (started, requeued)
    assert ended.returncode == (srun == "exit 1" and restarts == "10")
