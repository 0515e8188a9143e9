"""How fast an exported model is: the measurement and its table."""

import json

import pytest

from benchmarks.inference_tables import inference_speed

ROW = {
    "recipe": "digits", "threads": 2, "batch_size": 256, "weights": "random",
    "images_per_s": {"ours": [900.0, 1000.0, 1100.0], "timm": [800.0, 900.0, 1000.0], "onnxruntime": [2000.0, 2100.0, 2400.0]},
    "latency_ms": {"ours": [2.0, 2.5, 3.0], "timm": [2.0, 3.0, 4.0], "onnxruntime": [0.5, 0.25, 0.75]},
    "speed_ratio": {"ours": 1.0, "timm": 0.9, "onnxruntime": 2.1},
    "latency_ratio": {"ours": 1.0, "timm": 1.2, "onnxruntime": 0.2},
}  # fmt: skip


def test_the_table_has_medians_ranges_and_the_load(tmp_path):
    content = {"device": "a CPU", "versions": {"torch": "2.14"}, "onnxruntime": "1.32", "timm": "1.0", "rows": [ROW],
               "load_average_before": 0.25, "load_average_after": 2.0}  # fmt: skip
    (tmp_path / "cpu.json").write_text(json.dumps(content))
    table = inference_speed(tmp_path / "cpu.json")
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| `")]
    assert [line[2] for line in lines] == ["PocketViT in PyTorch", "timm in PyTorch", "exported, in onnxruntime"]
    assert lines[2][3:] == ["2,100 (2,000 – 2,400)", "2.10", "0.50 (0.25 – 0.75)", "0.20"]
    assert "0.2 before and 2.0 after" in table and "3 rounds" in table and "random weights" in table
    assert inference_speed(tmp_path / "none.json") == "not measured yet"


@pytest.mark.long
def test_three_programs_are_timed_that_agree(monkeypatch):
    from benchmarks import inference

    monkeypatch.setattr(inference, "BATCH", 3)
    monkeypatch.setattr(inference, "SINGLES", 2)
    row = inference.measure("digits", threads=1, rounds=2)
    for what in ("images_per_s", "latency_ms"):
        assert set(row[what]) == {"ours", "timm", "onnxruntime"}
        assert all(len(values) == 2 and min(values) > 0 for values in row[what].values())
    assert row["speed_ratio"]["ours"] == row["latency_ratio"]["ours"] == 1 and row["num_params"] == 138_186
