"""A request to stop, asked once or again."""

import math
import os
import shlex
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from pocketvit.errors import InputError
from pocketvit.inference.trained_model import load_model
from pocketvit.training import stop
from pocketvit.training.stop import Stopped, StopRequest


def send(signum: int) -> None:
    os.kill(os.getpid(), signum)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_copies_of_it_change_nothing(signum, monkeypatch):
    monkeypatch.setattr(stop, "AGAIN_S", math.inf)
    with StopRequest() as request:
        assert request.signum is None
        send(signum)
        send(signum)
        send(signal.SIGTERM)
        assert request.signum == signum


def test_a_second_ctrl_c_interrupts_at_once_but_a_second_sigterm_does_not(monkeypatch):
    monkeypatch.setattr(stop, "AGAIN_S", 0.0)
    with pytest.raises(KeyboardInterrupt), StopRequest() as request:
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        assert request.signum == signal.SIGTERM
        send(signal.SIGINT)


def test_the_handlers_before_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_run_in_another_thread_leaves_signals_alone():
    """As in a notebook: Python allows handlers in the main thread only."""
    before, seen = signal.getsignal(signal.SIGTERM), []

    def run() -> None:
        with StopRequest() as request:
            seen.append((request.signum, signal.getsignal(signal.SIGTERM)))

    with ThreadPoolExecutor(1) as thread:
        thread.submit(run).result()
    assert seen == [(None, before)] and signal.getsignal(signal.SIGTERM) == before


def test_a_folder_with_a_blank_is_quoted_where_a_command_names_it(tmp_path):
    run = tmp_path / "my run"
    run.mkdir()
    (run / "config.yaml").write_text("")
    with pytest.raises(InputError) as unfinished:
        load_model(run)
    for said in (str(Stopped(signal.SIGINT, run)), str(unfinished.value)):
        assert shlex.split(said.partition("resume with: ")[2]) == ["pocketvit", "train", "--resume", str(run)]
