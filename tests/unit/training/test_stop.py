"""A request to stop, asked once or again."""

import os
import signal

import pytest

from pocketvit.training import stop
from pocketvit.training.stop import StopRequest


def send(signum: int) -> None:
    os.kill(os.getpid(), signum)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_copies_of_it_change_nothing(signum):
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
