"""The fuzz run finds what it looks for, and a short one finds nothing in our readers."""

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from random import Random

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import worker
from mutations import mutate
from readers import READERS, Reader, download
from worker import OUTCOMES, _outcomes, _rename, _run

from pocketvit.data.formats.registry import FORMATS
from pocketvit.errors import InputError


def fuzz(out: Path, *arguments: str) -> dict[str, dict[str, int]]:
    """The counts of a run."""
    command = [sys.executable, str(Path(__file__).parent), "--out", str(out), *arguments]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-5_000:] + ran.stderr[-5_000:]
    return json.loads((out / "table.json").read_text())["readers"]


@pytest.mark.long
def test_unchanged_files_are_read(tmp_path):
    counts = fuzz(tmp_path, "--cases", "1", "--first", "-1", "--jobs", "1")
    strange = {name: count for name, count in counts.items() if count != {"result": 1}}
    # The first is of a format that is refused; and the server's file has another checksum.
    assert strange == {"image foreign": {"error": 1}, "download": {"error": 1}} and len(counts) == len(READERS)


def test_every_data_format_is_read():
    words = {text.split()[0] for reader in READERS for text in (reader.name, reader.seed)}
    assert {known.name for known in FORMATS} <= words, "write a valid one in tests/fuzz/seeds.py"


@pytest.mark.long
def test_changed_files_end_in_a_result_or_one_line(tmp_path):
    counts = fuzz(tmp_path, "--cases", "100", "--seconds", "60")
    assert all(sum(count.values()) >= 15 and not count.keys() & {*OUTCOMES[2:]} for count in counts.values())
    assert sum(sum(count.values()) == 100 for count in counts.values()) > 30
    assert all(
        count.get("error") for name, count in counts.items() if name in ("npz", "parquet", "model", "study.yaml")
    )


def read(what: str):
    def reader(_folder: Path, _seeds: Path) -> None:
        match what:
            case "traceback":
                raise KeyError("x")
            case "hang":
                time.sleep(60)
            case "memory":
                print(len(bytearray(b"x") * 2**30))
            case "crash":
                os._exit(3)
            case "program":
                subprocess.run(["true"])
            case "control":
                print("\x1b[2J")
            case "error":
                sys.exit(2)

    return reader


@pytest.mark.parametrize("what", OUTCOMES)
def test_what_goes_wrong_is_told_apart(tmp_path, what):
    (tmp_path / "case").mkdir()
    ((outcome, _),) = _run(
        Reader(what, "", "", read(what)), [tmp_path / "case"], tmp_path, 3.0 if what == "hang" else 60.0, 1.0
    )
    assert outcome == what


def test_cases_that_are_read_together_are_told_apart(tmp_path, monkeypatch):
    before = []

    def reader(folder: Path, seeds: Path) -> None:
        number = int(folder.parent.name)
        before.append(number)
        if number == 1 and len(before) > 1:
            raise KeyError("only beside others")
        read({2: "hang", 3: "crash", 5: "traceback", 7: "error"}.get(number, "result"))(folder, seeds)

    def make(_reader: Reader, cases: dict[int, Path], _seed: int, _seeds: Path) -> None:
        for folder in cases.values():
            folder.mkdir(parents=True)

    monkeypatch.setattr(worker, "_make", make)
    cases = {number: tmp_path / str(number) / "case" for number in range(8)}
    found = {n: outcome for n, outcome, _ in _outcomes(Reader("x", "", "", reader), cases, 0, tmp_path, 3.0, 1.0)}
    right = dict.fromkeys(range(8), "result") | {2: "hang", 3: "crash", 5: "traceback", 7: "error"}
    assert found == right and not before


@pytest.fixture
def driver():
    """`__main__.py` as a module."""
    spec = importlib.util.spec_from_file_location("fuzz_driver", Path(__file__).with_name("__main__.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_run_that_was_stopped_goes_on_and_counts_each_case_once(tmp_path, monkeypatch, driver):
    asked = []

    def lines(_told: dict, todo: list[tuple[str, int]]):
        asked.append(todo)
        for at, (reader, number) in enumerate(todo):
            if len(asked) == 1 and at == 250:
                raise KeyboardInterrupt
            yield reader, number, "error", ""

    def run(*arguments: str) -> int:
        command = ["fuzz", "--out", str(tmp_path), "--cases", "250", "--only", "report", "--jobs", "1", *arguments]
        monkeypatch.setattr(sys, "argv", command)
        return driver.main()

    monkeypatch.setattr(driver, "_lines", lines)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert {name for name, _ in asked[0][:400]} == {name for name, _ in asked[0]}  # the first ones are of every reader
    with pytest.raises(SystemExit):
        run("--resume", "--seed", "1")
    assert run("--resume") == run("--resume") == 0 and len(asked) == 2
    assert not {*asked[0][:250]} & {*asked[1]} and {*asked[0]} == {*asked[0][:250], *asked[1]}
    held = json.loads((tmp_path / "table.json").read_text())
    assert held["readers"]["report result.json"] == {"error": 250} and held["readers"]["report env.json"] == {
        "error": 42
    }
    assert held["seed"] == 0 and held["versions"]["python"]


def test_a_run_ends_at_its_time_limit_and_passes_over_what_cannot_be_made(tmp_path, monkeypatch, capfd):
    todo = [["npz", number] for number in range(150)] + [["idx", number] for number in range(150)]
    (tmp_path / "todo.json").write_text(json.dumps(todo))

    def outcomes(reader: Reader, batch: dict[int, Path], *_others: object):
        if reader.name == "npz" and 0 in batch:
            raise RuntimeError("no such file")
        yield from ((number, "result", "") for number in batch)

    monkeypatch.setattr(worker, "_import_all", lambda: None)
    monkeypatch.setattr(worker, "_outcomes", outcomes)
    told = {"scratch": str(tmp_path), "seeds": "", "out": "", "share": 0, "jobs": 1, "seed": 0, "seconds": 1, "gib": 1}
    for until, count in ((time.monotonic() + 60, 200), (time.monotonic(), 0)):
        monkeypatch.setattr(sys, "argv", ["worker", json.dumps(told | {"until": until})])
        worker.main()
        assert len(capfd.readouterr().out.splitlines()) == count


def test_a_change_has_no_more_memory_than_a_case(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "_change", lambda *_: bytearray(worker.SPARE + 2**31))
    with pytest.raises(RuntimeError, match="cannot be made"):
        worker._make(READERS[0], {0: tmp_path / "case"}, 0, tmp_path)


def test_a_server_outlives_those_who_hang_up(tmp_path, monkeypatch):
    died = []
    monkeypatch.setattr(threading, "excepthook", lambda about: died.append(about.exc_type))
    (tmp_path / "response").write_bytes(b"x" * 40_000_000)
    with pytest.raises(InputError, match="connection lost: .*, 3 times"):
        download(tmp_path, tmp_path)
    assert not died


def test_the_same_seed_makes_the_same_changes():
    text = b"recipe: digits\nseeds: 2\n"
    made = [[mutate(text, Random(i)) for i in range(50)] for _ in range(2)]
    assert made[0] == made[1] and len(set(made[0])) > 40 and text not in made[0][:1]


def test_two_folders_may_be_given_the_same_name(tmp_path):
    for name in "ab":
        (tmp_path / name / "x").mkdir(parents=True)
    for name in "ab":
        _rename(tmp_path / name, Random(0))
    assert sorted(path.name for path in tmp_path.iterdir()) != ["a", "b"] and len(list(tmp_path.iterdir())) == 2
