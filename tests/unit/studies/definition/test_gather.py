"""Results are found wherever they lie; of several with one key, the one that is meant."""

import json

import pytest
from synthetic_results import result_content

from pocketvit.runs.result import find_results
from pocketvit.studies import parse_study
from pocketvit.studies.definition.gather import gather
from pocketvit.studies.definition.jobs import study_jobs


def write(path, num_gpus=1, seed=0, **fields) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result_content(num_gpus=num_gpus, seed=seed) | fields))


@pytest.mark.parametrize("folder", ["a", "z"])
def test_a_run_on_one_gpu_counts_before_one_on_several(tmp_path, folder):
    """Whichever comes first by name."""
    write(tmp_path / folder / "paper-s0.json")
    write(tmp_path / "m" / "paper-2gpus-s0.json", num_gpus=2)
    assert find_results([tmp_path])["de82639bc010-s0"].file == tmp_path / folder / "paper-s0.json"


def test_a_run_on_several_gpus_counts_where_it_is_the_only_one_and_is_not_excluded(tmp_path):
    write(tmp_path / "four.json", num_gpus=4, seed=1)
    write(tmp_path / "two.json", num_gpus=2, seed=1)
    write(tmp_path / "cpu.json", num_gpus=0, seed=2)
    found = find_results([tmp_path])
    assert found["de82639bc010-s1"].file.name == "two.json" and found["de82639bc010-s2"].file.name == "cpu.json"
    assert set(find_results([tmp_path], one_gpu=True)) == {"de82639bc010-s2"}


def test_a_run_on_several_gpus_is_no_finished_cell_of_a_study(tmp_path):
    """Its time is that of no single one, and whoever sets studies beside the paper leaves it out as well."""
    study = parse_study({"recipe": "digits", "seeds": 2, "rows": {"a": {}}}, "test")
    jobs = study_jobs(study, tmp_path / "out", lambda data: "some")
    for job, num_gpus in zip(jobs, (2, 1), strict=True):
        key, _, seed = job.key.rpartition("-s")
        write(tmp_path / "results" / f"{job.key}.json", num_gpus, int(seed), config_hash=key)
    assert [cell.state for cell in gather(jobs, tmp_path / "results")] == ["missing", "done"]


@pytest.mark.parametrize("target", ["/proc/self/mem", "x" * 300, "large"])
def test_a_failure_that_cannot_be_read_ends_no_study(tmp_path, target):
    (job,) = study_jobs(
        parse_study({"recipe": "digits", "rows": {"a": {}}}, "test"), tmp_path / "out", lambda _: "some"
    )
    job.failure.parent.mkdir(parents=True)
    job.failure.symlink_to(target)
    (job.failure.parent / "large").write_bytes(b"x" * 100_000)
    (cell,) = gather([job])
    why = "larger than 65,536 bytes" if target == "large" else "Input/output error"
    assert cell.state == "missing" if len(target) > 255 else f"cannot be read: {why}" in cell.error


def test_the_first_folder_counts_and_in_it_the_first_by_path(tmp_path):
    write(tmp_path / "own" / "result.json", num_gpus=2)
    write(tmp_path / "elsewhere" / "b.json")
    write(tmp_path / "elsewhere" / "a.json")
    folders = [tmp_path / "own", tmp_path / "elsewhere"]
    assert find_results(folders)["de82639bc010-s0"].file == folders[0] / "result.json"
    assert find_results(folders[1:])["de82639bc010-s0"].file == folders[1] / "a.json"


def test_other_files_are_passed_over(tmp_path):
    (tmp_path / "torn.json").write_text('{"config_hash":')
    (tmp_path / "bench.json").write_text('{"rows": []}')
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    wrong = {"config_hash": 7, "seed": "0", "num_gpus": None, "test_accuracy": None, "device": None, "train_s": None}
    wrong |= {"total_s": "2", "images_per_s": 0.0}
    wrong_accuracies = {str(value): value for value in ("0.9", float("nan"), 94.0, -0.1)}
    for name, value in wrong.items():
        write(tmp_path / f"{name}.json", **{name: value})
    for name, value in wrong_accuracies.items():
        write(tmp_path / f"accuracy-{name}.json", test_accuracy=value)
        write(tmp_path / f"held-out-{name}.json", val_accuracy=value)
    assert find_results([tmp_path, tmp_path / "absent"]) == {}
