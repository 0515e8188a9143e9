import json

import pytest

from benchmarks.peers.__main__ import PEERS, _lines, lines_of, main
from benchmarks.peers_tables import peers_table


def test_lines_are_those_that_a_user_writes():
    text = '''"""What it does,
    in two lines."""

import torch
from benchmarks.peers.clock import Clock

task = Task.read()  # clock
# a comment
model = Model(
    task.width,

    depth=2,
)
clock.step(1)


def f():
    """Do."""
    return "text"
'''
    assert _lines(text) == 1 + 4 + 2


@pytest.mark.nightly
@pytest.mark.long
def test_every_peer_trains_and_is_measured(tmp_path, monkeypatch):
    out = tmp_path / "peers.json"
    monkeypatch.setattr(
        "sys.argv", ["peers", "digits", "--device", "cpu", "--passes", "2", "--rounds", "1", "--out", str(out)]
    )
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    main()
    measured = json.loads(out.read_text())
    assert [row["peer"] for row in measured["rows"]] == list(PEERS)
    for row in measured["rows"]:
        (run,) = row["runs"]
        assert run["images"] == 2 * 22 * 64
        assert run["images_per_s"] > 0 and 0 < run["first_step_s"] < run["trained_s"] < run["total_s"]
        assert run["memory_gib"] > 0.1 and run["accuracy"] > 0.12, row["peer"]
    lines = {row["peer"]: row["lines"] for row in measured["rows"]}
    assert lines["pocketvit"] == lines_of(PEERS["pocketvit"]) < 10 < min(lines[n] for n in lines if n != "pocketvit")
    table = peers_table(out)
    assert table.count("\n| ") == 1 + len(PEERS) and "Hugging Face `Trainer`" in table
