"""The tables of docs/records.md, from made results of made recipes."""

from dataclasses import asdict
from pathlib import Path

import pytest
from synthetic_results import synthetic_result

from benchmarks import tables
from benchmarks.minute_tables import search
from benchmarks.records_tables import CLASSES, HERE, RECORDS, heights, record_now, records
from pocketvit.config import RunConfig, override
from pocketvit.data.dataset import CIFAR10_FINGERPRINT
from pocketvit.errors import InputError
from pocketvit.files import read_json, write_json
from pocketvit.model import create_model
from pocketvit.recipes import RECIPES, minute
from pocketvit.report.text import NBSP
from pocketvit.studies import load_study
from pocketvit.studies.definition.jobs import study_jobs
from pocketvit.tables import mean_and_spread

ACCURACY = {"best": 0.965, "speedrun": 0.941, "small": 0.95, "self-supervised": 0.97}
FILES = [HERE / "records" / f"{name}.yaml" for name in ("best", "speedrun", "records")]


@pytest.fixture
def chosen(monkeypatch):
    """As if the two recipes were there."""
    for name, passes in (("best", 300), ("speedrun", 80)):
        made = override(minute(), {"recipe": name, "schedule.passes": passes})
        monkeypatch.setitem(RECIPES, name, lambda made=made: made)


def write_runs(file: Path, results: Path, seeds=(0, 1, 2)) -> None:
    """Runs of a study's rows in `ACCURACY`, and of those that they start from."""
    study = load_study(file)
    for _ in range(2):  # a run that starts from another has a key once that one has a result
        for job in study_jobs(study, results, lambda data: CIFAR10_FINGERPRINT):
            if job.cell.seed in seeds and (job.cell.row in ACCURACY or job.cell.row == "pretrained"):
                accuracy = ACCURACY.get(job.cell.row, 0.5) + 0.001 * job.cell.seed
                made = synthetic_result(
                    config_hash=job.key.rpartition("-s")[0], seed=job.cell.seed, data_fingerprint=CIFAR10_FINGERPRINT,
                    test_accuracy=accuracy, test_accuracy_tta=accuracy + 0.01, val_accuracy=accuracy, train_s=95.0, total_s=130.0,
                    images_seen=15_000_000, images_total=30_000_000 if job.cell.row == "self-supervised" else None,
                    model_digest="0123456789abcdef", num_params=2_722_378,
                )  # fmt: skip
                content = {key: value for key, value in asdict(made).items() if key not in ("file", "extra")}
                (results / study.name).mkdir(parents=True, exist_ok=True)
                write_json(results / study.name / f"{job.cell.name}.json", content)


def lines_of(table: str) -> dict[str, str]:
    """The lines of a table by their first cell."""
    lines = table.replace(NBSP, " ").splitlines()
    return {line.split("|")[1].strip(" `"): line for line in lines if line.startswith("| ")}


def test_without_results_every_table_says_so(tmp_path):
    assert record_now(tmp_path) == "Not measured yet."
    assert records(tmp_path).count("not measured yet") == len(RECORDS)
    num_rows = len(load_study(HERE / "best_search.yaml").rows)
    assert search(tmp_path, "best_search.yaml").startswith(
        f"Not measured yet: {num_rows} rows. To run: `pocketvit study"
    )


def test_finished_records_have_their_figures(chosen, tmp_path):
    for file in FILES:
        write_runs(file, tmp_path)
    lines = lines_of(records(tmp_path))
    assert list(lines)[2:] == [record.name for record in RECORDS]
    assert (
        "| 96.60 ± 0.10 | 96.5 | 3 of 5 (2 missing) | 95.0" in lines["best"]
        and "`pocketvit train best`" in lines["best"]
    )
    assert "2,722,378 | 15.0 M |" in lines["best"] and "2 min 10" in lines["best"]
    assert "| 97.60 ± 0.10 |" in lines["flip averaging"], "by both images"
    assert "| 97.10 ± 0.10 |" in lines["self-supervised"] and "30.0 M" in lines["self-supervised"]
    assert f"`pocketvit study benchmarks/{CLASSES} --only small`" in lines["small"]
    assert "not measured yet" in lines["convolution"] and "not measured yet" in lines["minute"]
    said = record_now(tmp_path)
    assert (
        said.startswith("Our best, `pocketvit train best`, reaches 96.60 ± 0.10 %") and "3 seeds, 15.0 million" in said
    )
    assert "94.53 % ([Lee" in said


def test_the_clock_of_the_speedrun_is_the_warm_one(chosen, tmp_path):
    write_runs(FILES[1], tmp_path, seeds=(0,))
    runs = [{"seed": seed, "seconds": 12.0 + seed, "test_accuracy": 0.94} for seed in range(3)]
    clock = {
        "recipe": "speedrun",
        "set": {},
        "runs": runs,
        "device": "an H200",
        "versions": {"torch": "2.11"},
        "command": "timed",
    }
    (tmp_path / "warm").mkdir()
    write_json(tmp_path / "warm" / "speedrun.json", clock)
    table = records(tmp_path)
    line = lines_of(table)["speedrun"]
    assert "| 94.00 ± 0.00 | 94.0 | 3 | 13.00 ± 1.00 s, warm | 2 min 10" in line
    assert "`speedrun` is timed warm on an H200, PyTorch 2.11, by `timed`" in table
    write_json(tmp_path / "warm" / "speedrun.json", clock | {"set": {"model.depth": "6"}})
    with pytest.raises(InputError, match="not the recipe speedrun"):
        records(tmp_path)


def test_figure_6_stands_until_there_is_a_best():
    results = HERE.parent / "results"
    runs = [read_json(file) for file in sorted((results / "paper-fig6").glob("muon-s*.json"))]
    said, accuracy = record_now(results), [100 * run["test_accuracy"] for run in runs]
    assert f"reaches {mean_and_spread(accuracy)} % on CIFAR-10's test images ({len(runs)} seeds, 14.7 million" in said
    assert f"on one {runs[0]['device']})" in said and "--optim.name muon`" in said and "has 94.53 % ([Lee" in said
    assert heights().count("| no |") == 3


def test_a_search_shows_what_was_measured(tmp_path):
    study = load_study(HERE / "best_search.yaml")
    for row, accuracy in (("base", 0.95), ("tokens64", 0.944)):
        config = next(one.config for one in study.rows if one.name == row)
        job = next(
            job for job in study_jobs(study, tmp_path, lambda data: CIFAR10_FINGERPRINT) if job.cell.config == config
        )
        made = synthetic_result(
            config_hash=job.key.rpartition("-s")[0], data_fingerprint=CIFAR10_FINGERPRINT, val_accuracy=accuracy
        )
        content = {key: value for key, value in asdict(made).items() if key not in ("file", "extra")}
        write_json(tmp_path / f"{row}.json", content)
    lines = lines_of(table := search(tmp_path, "best_search.yaml"))
    assert list(lines)[2:] == ["base", "tokens64"], "rows that lose stay"
    assert "`model.patch_size` 11, `model.patch_stride` 3 | 300 | 94.40 | base | −0.60 |" in lines["tokens64"]
    assert table.splitlines()[-1].startswith("Not measured yet: `tokens81`, `twice`, `tail-average`")


def test_what_the_final_runs_train_obeys_the_rules(chosen):
    """By a recipe in their place; the searches decide the others' values."""
    rows: dict[str, RunConfig] = {row.name: row.config for file in FILES for row in load_study(file).rows}
    assert {len(row.seeds) for row in load_study(FILES[0]).rows} == {5} and len(
        load_study(FILES[1]).rows[0].seeds
    ) == 10
    assert not any(config.data.val_frac for config in rows.values()), "all training images"
    sizes = {name: create_model(**vars(config.model)).num_params for name, config in rows.items()}
    assert sizes["small"] <= 700_000 and sizes["convolution"] <= 4_000_000
    assert {record.row or record.name for record in RECORDS} - {"minute"} == rows.keys() - {"pretrained"}


def test_the_readmes_first_table_takes_a_finished_record(chosen, tmp_path, monkeypatch):
    write_runs(FILES[0], tmp_path)
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    monkeypatch.setitem(tables.STUDIES, "best", tables.RECORDS["best"])
    line = lines_of(tables.study_table("best"))["best"]
    assert "96.60 ± 0.10" in line and "`pocketvit train best --seed SEED`" in line
