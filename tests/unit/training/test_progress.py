"""What a run says: a bar in a terminal, lines elsewhere."""

import io
import re

import pytest
from rich.console import Console

from pocketvit.training.progress import BarReporter, LineReporter, console_reporter, pass_text

LINE = {"pass": 3, "loss": 1.25, "images_per_s": 12_345.6, "lr": 2e-3}


def console(terminal: bool, width: int = 120) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width)


def test_a_pass_in_words():
    assert pass_text(LINE) == "pass 3  loss 1.250  12,346 images/s  lr 0.002"
    assert "val accuracy 91.50%" in pass_text(LINE | {"val_accuracy": 0.915})


def test_the_terminal_decides():
    assert isinstance(console_reporter(console(True)), BarReporter)
    assert isinstance(console_reporter(console(False)), LineReporter)


def test_lines_are_few_but_every_accuracy_is_said():
    out = console(False)
    lines = LineReporter(out)
    lines.start(100, 0)
    for number in range(1, 6):
        lines.passed(LINE | {"pass": number} | ({"test_accuracy": 0.5} if number == 4 else {}))
    said = out.file.getvalue().splitlines()
    assert [line.split()[1] for line in said] == ["1", "4"], "the first, and the one with an accuracy"


def test_notes_are_not_wrapped_or_marked_up():
    out = console(False)
    LineReporter(out).note("[bold]" + "x" * 300)
    assert out.file.getvalue() == "[bold]" + "x" * 300 + "\n"


def test_notes_above_the_bar_are_not_wrapped_either():
    out = console(True, 80)
    bar = BarReporter(out)
    bar.note("run folder: before " + "x" * 300)
    bar.start(100, 0)
    bar.note("run folder: [bold]" + "y" * 300)
    bar.stop()
    said = out.file.getvalue()
    assert "run folder: before " + "x" * 300 + "\n" in said and "run folder: [bold]" + "y" * 300 + "\n" in said


def test_the_bar_shows_speed_then_the_last_pass_with_the_latest_accuracy():
    out = console(True)
    bar = BarReporter(out)
    bar.start(100, 0)
    bar.advance(10)
    bar.passed(LINE | {"test_accuracy": 0.5})
    bar.passed(LINE | {"pass": 4})
    bar.note("a line above")
    bar.stop()
    shown = out.file.getvalue()
    assert "first step" in shown and "pass 4" in shown and "test accuracy 50.00%" in shown and "a line above" in shown


def test_every_evaluation_keeps_its_line_above_the_bar():
    out = console(True)
    bar = BarReporter(out)
    bar.start(100, 0)
    for number in range(1, 7):
        accuracies = {"train_accuracy": 0.9} | ({"val_accuracy": number / 10} if number % 2 == 0 else {})
        bar.passed(LINE | {"pass": number} | accuracies)
    bar.stop()
    kept = re.findall("\x1b\\[2K(pass .*)", out.file.getvalue())  # where the bar was; that below it is colored
    assert kept == [pass_text(LINE | {"pass": n, "val_accuracy": n / 10}) for n in (2, 4, 6)]


@pytest.mark.parametrize("width", [120, 80, 40])
def test_the_bar_is_two_lines_that_fit_on_80_columns(width):
    out = console(True, width)
    bar = BarReporter(out)
    bar.start(100, 0)
    bar.passed({"pass": 300, "loss": 2.3026, "images_per_s": 127_425.6, "lr": 2.25e-5, "test_accuracy": 1.0})
    bar.stop()
    with out.capture() as captured:
        out.print(bar.progress.get_renderable())
    first, second = captured.get().splitlines()
    assert "0 %" in first and "left" in first and "pass 300  loss 2.303" in second
    assert ("…" in second) == (width < 80)
    assert ("test accuracy 100.00%  127,426 images/s  lr 2.3e-05" in second) == (width >= 80)
