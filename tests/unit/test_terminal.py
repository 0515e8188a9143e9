"""What a terminal would obey is escaped wherever names are printed."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from pocketvit.cli import main
from pocketvit.studies.definition.gather import CellResult
from pocketvit.studies.execution.live import ended_text
from pocketvit.terminal import printable
from pocketvit.training.progress import BarReporter, LineReporter

ESCAPE = "red\x1b[31m\r\u202e\x9b"
SHOWN = r"red\x1b[31m\r\u202e\x9b"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ä × 猫 👩‍👩‍👧", "plain ä × 猫 👩‍👩‍👧"),
        ("no\N{NO-BREAK SPACE}break", "no\N{NO-BREAK SPACE}break"),
        ("caf\udce9", r"caf\udce9"),
        ("a\nb\u2028c", r"a\nb\u2028c"),
        (ESCAPE, SHOWN),
        ("x" * 2_000, "x" * 999 + "…"),
        ("\x1b" * 2_000_000, r"\x1b" * 249 + r"\x1" + "…"),
    ],
    ids=range(7),
)
def test_what_is_obeyed_is_escaped_and_what_is_long_is_cut(text, shown):
    assert printable(text) == shown


def exits(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return left.value.code


def is_clean(printed: str) -> bool:
    return all(letter == "\n" or letter.isprintable() or letter == "\xa0" for letter in printed)


def test_errors_and_names_reach_the_terminal_escaped(tmp_path, capsys):
    for name in (ESCAPE, "b" * 200):
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.fromarray(np.full((4, 4, 3), 9 * i, np.uint8)).save(tmp_path / name / f"{i}.png")
    assert exits("data", "check", tmp_path) == 0
    said = capsys.readouterr().out
    assert is_clean(said) and f"{SHOWN:<60}" in said and "b" * 59 + "…" in said
    (tmp_path / ESCAPE / "0.png").write_bytes(b"")
    assert exits("data", "check", tmp_path) == 2
    said = capsys.readouterr().err
    assert is_clean(said) and f"{SHOWN}/0.png: the image is empty" in said


def test_what_a_run_and_a_study_say_is_escaped(capsys):
    for kind in (LineReporter, BarReporter):
        kind(Console(force_terminal=False, width=300)).note(ESCAPE)
        assert capsys.readouterr().out == SHOWN + "\n"
    cell = CellResult(row="a", seed=0, state="failed", result=None, error=ESCAPE, folder=None)
    assert ended_text(cell, "test_accuracy", "here").plain == f"a seed 0 failed: {SHOWN}"


@pytest.mark.parametrize("arguments", [["data", "check"], ["train", "--config"], ["train", "--data"], ["study"]])
def test_a_name_that_no_system_takes_is_refused_in_one_line(arguments, capsys):
    assert exits(*arguments, "x" * 300) == 2
    said = capsys.readouterr().err
    assert said.startswith("pocketvit: ") and "File name too long" in said and said.count("\n") == 1


def test_a_full_disk_behind_the_output_is_said_in_one_line():
    with open("/dev/full", "w") as full:
        ran = subprocess.run([sys.executable, "-m", "pocketvit", "data", "list"], stdout=full, stderr=subprocess.PIPE)
    assert (ran.returncode, ran.stderr) == (2, b"pocketvit: cannot use a file: No space left on device\n")
