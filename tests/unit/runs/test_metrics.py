"""metrics.jsonl is read whole, or its last line while a run goes on."""

import json
import os

import pytest
from bounded import refusal

from pocketvit.errors import InputError
from pocketvit.runs.metrics import TAIL_BYTES, last_line, read_metrics


def line(number: int, **fields) -> str:
    return json.dumps({"pass": number, "images": 1, "loss": 1.0, "lr": 1e-3, "train_s": 0.5} | fields) + "\n"


def test_the_last_whole_line_counts(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert last_line(path) is None
    path.write_text(line(1, note="x" * TAIL_BYTES) + line(2))
    assert last_line(path)["pass"] == 2
    for torn in ('{"pass": 3, "im', line(3).strip(), "[1]\n", '{"pass": 3}\n', "[" * 2_000 + "\n"):
        path.write_text(line(1) + line(2) + torn)
        assert last_line(path)["pass"] == 2, torn
    path.write_text("")
    assert last_line(path) is None


@pytest.mark.parametrize("text", ["7\n", "[1]\n", '"text"\n'])
def test_a_line_that_is_no_mapping_is_refused(tmp_path, text):
    (tmp_path / "metrics.jsonl").write_text(line(1) + text)
    with pytest.raises(InputError, match=r"metrics\.jsonl line 2 lacks pass, images"):
        read_metrics(tmp_path / "metrics.jsonl")


DEEP = "[" * 100_000


@pytest.mark.parametrize("wrong", ['"x"', "null", "NaN", "Infinity", "true", "[1]", "{}", "1" + "0" * 400])
@pytest.mark.parametrize("key", ["loss", "pass", "test_accuracy", "train_accuracy", "val_loss"])
def test_a_line_whose_figures_are_none_is_refused(tmp_path, key, wrong):
    fields = json.loads(line(2)) | {key: 0.5}
    text = json.dumps(fields).replace(f'"{key}": 0.5', f'"{key}": {wrong}') + "\n"
    (tmp_path / "metrics.jsonl").write_text(line(1) + text)
    with pytest.raises(InputError, match=rf"metrics\.jsonl line 2: {key} is .*; expected a finite number"):
        read_metrics(tmp_path / "metrics.jsonl")
    assert last_line(tmp_path / "metrics.jsonl")["pass"] == 1


@pytest.mark.parametrize("content", [DEEP.encode(), b"\xe9", b"1" * 5_000], ids=["deep", "Latin-1", "long"])
def test_bytes_that_are_no_json_are_refused(tmp_path, content):
    (tmp_path / "metrics.jsonl").write_bytes(line(1).encode() + content)
    with pytest.raises(InputError, match="line 2 "):
        read_metrics(tmp_path / "metrics.jsonl")


def test_a_pipe_has_no_last_line_and_stops_no_resumed_run(tmp_path):
    os.mkfifo(tmp_path / "metrics.jsonl")
    imports = "from pocketvit.runs.folder import RunFolder\nfrom pocketvit.runs.metrics import last_line"
    code = "folder = RunFolder(pathlib.Path(sys.argv[1]))\nprint(last_line(folder.metrics))\nfolder.cut_metrics(1)"
    said = refusal(code, tmp_path, imports=imports, timeout_s=30).splitlines()
    why = "not a regular file; remove it to resume the run"
    assert said == ["None", f"cannot read {tmp_path}/metrics.jsonl: {why}"]


def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(InputError, match=r"cannot read .*metrics\.jsonl: not a regular file"):
        read_metrics(tmp_path / "metrics.jsonl")
