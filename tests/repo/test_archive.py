"""benchmarks/archive.py: what a study's runs left behind becomes files under results/."""

import json

import pytest
import yaml
from synthetic_results import result_content

from pocketvit.config import config_hash
from pocketvit.studies import load_study


@pytest.fixture
def study(tmp_path):
    """A study of two rows with two seeds, as a file."""
    path = tmp_path / "my_study.yaml"
    rows = {"one": {}, "two": {"model.num_cls_tokens": 2}}
    path.write_text(yaml.safe_dump({"recipe": "digits", "seeds": 2, "baseline": "one", "rows": rows}))
    return path


@pytest.fixture
def write(study):
    """Writes the result of a cell as a run leaves it; of its name on some data."""

    def write(folder, name: str, data: str = "d1", accuracy: float = 0.5, **fields) -> None:
        cell = next(cell for cell in load_study(study).cells() if cell.name == name)
        hashed = config_hash(cell.config, data)
        run = folder / f"{hashed}-s{cell.seed}"
        run.mkdir(parents=True)
        result = {"config_hash": hashed, "seed": cell.seed, "data_fingerprint": data, "test_accuracy": accuracy}
        result = result_content(**result, train_s=9.5, commit="0123456789")
        (run / "result.json").write_text(json.dumps(result | fields))

    return write


def test_new_results_get_their_rows_names(benchmark_script, study, write, tmp_path):
    results = tmp_path / "results"
    write(tmp_path / "runs", "one-s1", accuracy=0.25)
    write(tmp_path / "runs", "two-s0", data="d2")
    lines = benchmark_script("archive").archive(str(study), tmp_path / "runs", results)
    assert (
        len(lines) == 2
        and "one-s1.json: 25.00 % of the test images" in lines[1]
        and lines[1].endswith("9.5 s, commit 01234567")
    )
    assert sorted(path.name for path in (results / "my-study").iterdir()) == ["one-s1.json", "two-s0.json"]
    assert json.loads((results / "my-study" / "one-s1.json").read_text())["test_accuracy"] == 0.25


def test_what_is_there_already_is_left_alone(benchmark_script, study, write, tmp_path):
    archive, results = benchmark_script("archive").archive, tmp_path / "results"
    write(results / "another-study", "one-s1", accuracy=0.75)
    write(tmp_path / "runs", "one-s1", accuracy=0.25)
    assert archive(str(study), tmp_path / "runs", results) == []
    assert not (results / "my-study").exists()


def test_a_run_on_several_gpus_is_neither_kept_nor_in_the_way(benchmark_script, study, write, tmp_path):
    archive, results = benchmark_script("archive").archive, tmp_path / "results"
    write(results / "scaling", "one-s1", num_gpus=2)
    write(tmp_path / "runs", "one-s1", commit=None)
    write(tmp_path / "runs", "two-s1", num_gpus=2)
    (line,) = archive(str(study), tmp_path / "runs", results)
    assert "one-s1.json" in line and line.endswith("commit unknown")


def test_results_of_other_runs_are_not_taken(benchmark_script, study, write, tmp_path):
    write(tmp_path / "runs", "one-s0")
    other = tmp_path / "other.yaml"
    rows = {"three": {"model.num_cls_tokens": 3}}
    other.write_text(yaml.safe_dump({"recipe": "digits", "seeds": 2, "baseline": "three", "rows": rows}))
    assert benchmark_script("archive").archive(str(other), tmp_path / "runs", tmp_path / "results") == []
