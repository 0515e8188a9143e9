"""result.json is read whole or refused with the file and the field, and written as it was read."""

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_results import result_content, synthetic_result

from pocketvit.errors import InputError
from pocketvit.runs.balance import balance_lines
from pocketvit.runs.result import Evaluation, RunResult, find_results, result_at

RESULTS = Path(__file__).parents[3] / "results"
POINT = {"images": 5, "train_s": 0.5, "accuracy": 0.25, "split": "test"}


def read(tmp_path: Path, **fields) -> RunResult:
    file = tmp_path / "result.json"
    file.write_text(json.dumps(result_content(**fields)))
    return RunResult.read(file)


def test_half_of_what_uneven_classes_need_is_no_line():
    assert balance_lines({"balanced_accuracy": 0.5, "majority_share": None, "classes_at_zero": ()}) == []


def test_every_kept_result_is_read_and_written_as_it_is(tmp_path):
    files = [file for file in RESULTS.rglob("*.json") if "config_hash" in json.loads(file.read_text())]
    assert len(files) > 100
    for file in files:
        result = RunResult.read(file)
        replace(result, file=tmp_path / "copy.json").write()
        copy, kept = (tmp_path / "copy.json").read_text(), file.read_text()
        if {"train_fingerprint", "cautions", "num_processes"} <= json.loads(kept).keys():
            assert copy == kept, file
        else:
            assert json.loads(copy).items() >= json.loads(kept).items(), file


def test_keys_of_another_version_survive(tmp_path):
    result = read(tmp_path, batch_size=256, idea={"new": [1]})
    assert result.extra == {"batch_size": 256, "idea": {"new": [1]}}
    replace(result, file=tmp_path / "copy.json").write()
    assert RunResult.read(tmp_path / "copy.json") == result


def test_a_result_knows_where_it_lies_and_travels_between_processes(tmp_path):
    result = read(tmp_path, curve=[POINT], cautions=["look"])
    assert result.run_folder == tmp_path and result.key == "de82639bc010-s0"
    assert result.curve == (Evaluation(5, 0.5, 0.25, "test"),) and result.cautions == ("look",)
    again = pickle.loads(pickle.dumps(result))
    assert again == result == replace(result, file=Path("elsewhere")) and again.file == result.file


def test_a_result_can_be_read_like_the_mapping_that_it_once_was(tmp_path):
    result = read(tmp_path, curve=[POINT])
    content = json.loads((tmp_path / "result.json").read_text()) | {"curve": result.curve}
    assert content and all(result[name] == value for name, value in content.items() if name not in result.extra)
    with pytest.raises(KeyError, match="run_folder"):
        result["run_folder"]


WRONG = {
    "test_accuracy": [None, "0.9", float("nan"), 94.0, -0.1, True],
    "best_test_accuracy": [1.5],
    "images_per_s": [0.0, float("inf"), None],
    "train_s": [-1.0, 10**400],
    "seed": ["0", 0.5, True],
    "config_hash": [7, None],
    "num_gpus": [None, 1.0],
    "peak_memory_gib": ["1.5"],
    "commit": [7],
    "versions": [[], {"torch": 2}],
    "cautions": ["one text", [1]],
    "curve": [{}, None],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in WRONG.items() for value in values])
def test_a_field_that_holds_something_else_is_named(tmp_path, field, value):
    with pytest.raises(InputError, match=rf"result\.json: {field} is .*; expected [a-z ]+") as refused:
        read(tmp_path, **{field: value})
    assert "\n" not in str(refused.value) and result_at(tmp_path / "result.json") is None


@pytest.mark.parametrize(
    ("point", "words"),
    [
        (7, "split': 'test'}, 7]; expected a list of objects"),
        ({"images": 5}, "a point of the curve lacks train_s, accuracy, split"),
        (POINT | {"split": "train"}, "a point of the curve: split is 'train'; expected test or val"),
        (POINT | {"accuracy": 25}, "a point of the curve: accuracy is 25; expected a number from 0 to 1"),
    ],
)
def test_a_point_that_is_none_is_named(tmp_path, point, words):
    with pytest.raises(InputError) as refused:
        read(tmp_path, curve=[{"split": "test"}, point] if point == 7 else [POINT, point])
    assert words in str(refused.value)


def test_what_older_results_lack_is_none(tmp_path):
    result = read(tmp_path)
    assert (result.train_fingerprint, result.num_processes, result.cautions) == (None, None, ())
    content = result_content()
    del content["device"], content["total_s"]
    (tmp_path / "result.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"result\.json lacks device, total_s: was it written by `pocketvit train`\?"):
        RunResult.read(tmp_path / "result.json")
    assert synthetic_result().val_accuracy is None


def test_no_file_in_a_folder_of_results_ends_the_search(tmp_path):
    """Each is passed over, whatever it is, and the whole one beside them is found."""
    whole = read(tmp_path)
    contents = ["", "[" * 100_000, "1" * 5_000, "[1]", "null", '{"curve": [1]}', "\0", '{"seed": {"a": [[]]}}']
    for i, content in enumerate([*contents, *(json.dumps(result_content(**{key: 10**400})) for key in WRONG)]):
        (tmp_path / f"{i}.json").write_text(content)
    (tmp_path / "bytes.json").write_bytes(b"\xe9\xff")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "nowhere.json").symlink_to(tmp_path / "gone")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.json")
    assert find_results([tmp_path]) == {whole.key: whole}
