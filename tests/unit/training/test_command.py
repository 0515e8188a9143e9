"""The command line that a run's files tell."""

import sys

import pytest

from pocketvit.training.runlog import command


@pytest.mark.parametrize("program", ["/opt/env/bin/pocketvit", "/opt/env/lib/pocketvit/__main__.py"])
def test_the_command_is_one_that_can_be_typed(monkeypatch, program):
    monkeypatch.setattr(sys, "argv", [program, "train", "paper", "--data", "my images"])
    assert command() == "pocketvit train paper --data 'my images'"
