"""metrics.jsonl is read whole, or its last line while a run goes on."""

import json

import pytest

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
