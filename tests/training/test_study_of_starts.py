"""A study whose rows start from the models of other rows, run for real."""

import io
import shutil

import pytest
from rich.console import Console

from pocketvit.errors import InputError
from pocketvit.studies import parse_study
from pocketvit.studies.execution.runner import run_study

SMALL = {"model.width": 32, "model.depth": 1, "model.num_heads": 2, "schedule.passes": 1, "schedule.warmup_passes": 0}
ROWS = {"first": {"optim.lr": 1e-3}, "tuned": {"init_from": {"run_of": "first"}}}


def study(rows=ROWS, **values):
    content = {"recipe": "digits", "base": SMALL | {"train.eval_every_passes": 1}, "seeds": 2, "rows": rows}
    return parse_study(content | values, "starts")


def run(tmp_path, rows=ROWS, **options):
    return run_study(study(rows), tmp_path / "out", console=Console(file=io.StringIO()), **options)


def test_each_seed_starts_from_the_model_of_its_own(tmp_path):
    cells = {(cell.row, cell.seed): cell.result for cell in run(tmp_path).gathered}
    for seed in (0, 1):
        first, tuned = cells["first", seed], cells["tuned", seed]
        assert (tuned.run_folder / "weights" / f"{first.model_digest}.safetensors").is_file()
        assert tuned.images_total == first.images_seen + tuned.images_seen
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    again = run(tmp_path)
    assert again.left == 0 and len(before) == 4
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")} == before, "nothing is run twice"


def test_a_row_whose_start_is_not_to_be_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="row 'tuned' starts from the model of row 'first': add first to --only"):
        run(tmp_path, only=["tuned"])


def test_a_start_whose_result_is_kept_elsewhere_is_found_in_the_studys_folder(tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    for cell in run(tmp_path).gathered:
        shutil.copy(cell.result.file, results / f"{cell.row}-s{cell.seed}.json")
    rows = ROWS | {"slower": {"init_from": {"run_of": "first"}, "optim.lr": 1e-4}}
    again = run(tmp_path, rows, results=results)
    assert [cell.state for cell in again.gathered] == ["done"] * 6
    for model in tmp_path.glob("out/*-s1/model.safetensors"):
        model.unlink()
    rows["slowest"] = {"init_from": {"run_of": "first"}, "optim.lr": 1e-5}
    with pytest.raises(InputError, match="row 'slowest': init_from: there is a result in .*results, but no model"):
        run(tmp_path, rows, results=results)
