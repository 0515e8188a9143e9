"""How a process of a run finds the others, watches its neighbour and leaves; messages are played."""

import time
from collections.abc import Callable
from contextlib import suppress

import pytest
import torch
import torch.distributed as dist

from pocketvit.errors import InputError
from pocketvit.training import distributed
from pocketvit.training.distributed import Processes, Watch, join


class Neighbours:
    """Those of process 0 of 3: what they say, and what the process says to them."""

    def __init__(self, monkeypatch) -> None:
        self.leaving, self.broken, self.heard = False, False, []
        self.exits: list[int] = []
        monkeypatch.setattr(dist, "isend", self.isend)
        monkeypatch.setattr(dist, "irecv", self.irecv)
        monkeypatch.setattr(distributed.os, "_exit", self.exit)
        for name, seconds in {"BEAT_S": 0.01, "LEAVE_S": 60}.items():
            monkeypatch.setattr(distributed, name, seconds)

    def wait(self, _silent: object) -> None:
        time.sleep(0.001)
        if self.broken:
            raise RuntimeError("Connection closed by peer")

    def isend(self, word: torch.Tensor, to: int, tag: int) -> "Neighbours":
        self.heard.append((bool(word), to))
        return self

    def irecv(self, word: torch.Tensor, before: int, tag: int) -> "Neighbours":
        assert before == 2
        word.fill_(self.leaving)
        return self

    def exit(self, code: int) -> None:
        self.exits.append(code)
        raise SystemExit


class Thread(Watch):
    """A watch of which only the thread exits."""

    def _watch(self) -> None:
        with suppress(SystemExit):
            super()._watch()


@pytest.fixture
def neighbours(monkeypatch):
    return Neighbours(monkeypatch)


@pytest.fixture
def watch(neighbours):
    """A watch over them; it has ended when the test has."""
    made = Thread(Processes(0, 3))
    yield made
    neighbours.broken = True
    made.hurry.set()
    made.thread.join(60)
    assert not made.thread.is_alive()


def until(true: Callable[[], bool]) -> None:
    """Wait until something is true."""
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_process_that_goes_on_says_so_again_and_again(watch, neighbours):
    until(lambda: len(neighbours.heard) > 3)
    assert set(neighbours.heard) == {(False, 1)} and watch.thread.is_alive() and not neighbours.exits


def test_processes_that_end_together_leave_in_peace(watch, neighbours):
    neighbours.leaving = True
    assert watch.leave() and not neighbours.exits
    assert neighbours.heard[-1] == (True, 1), "its neighbour is told"


def test_a_process_whose_neighbour_does_not_end_is_told_so(watch, neighbours, monkeypatch):
    monkeypatch.setattr(distributed, "LEAVE_S", 0.01)
    assert not watch.leave(), "nobody may take the connections down before all have left"
    until(lambda: (True, 1) in neighbours.heard)
    assert not neighbours.exits


def lines_of(capfd, neighbours) -> str:
    until(lambda: bool(neighbours.exits))
    assert neighbours.exits == [1]
    return capfd.readouterr().err


def test_a_process_that_still_waits_for_one_that_has_ended_exits(watch, neighbours, capfd, monkeypatch):
    monkeypatch.setattr(distributed, "LEAVE_S", 0.01)
    neighbours.leaving = True
    said = "pocketvit: process 2 has ended, but this one still waits for it; process 0 exits; start the run again to resume it\n"
    assert lines_of(capfd, neighbours) == said


def test_a_process_whose_launcher_is_gone_exits(watch, neighbours, capfd, monkeypatch):
    monkeypatch.setattr(distributed.os, "getppid", lambda: 1)
    assert lines_of(capfd, neighbours).startswith("pocketvit: the launcher is gone; process 0 exits;")


def test_a_process_whose_neighbour_dies_exits(watch, neighbours, capfd):
    until(lambda: bool(neighbours.heard))
    neighbours.broken = True
    assert lines_of(capfd, neighbours).startswith("pocketvit: another process of the run is gone; process 0 exits;")


def test_an_error_leaves_time_to_see_that_a_neighbour_died(neighbours, monkeypatch):
    """The watch looks at once, not only with the next heartbeat."""
    monkeypatch.setattr(distributed, "BEAT_S", 600)
    watch, neighbours.broken = Thread(Processes(0, 3)), True
    watch.give_time()
    assert neighbours.exits == [1] and not watch.thread.is_alive()


class Left:
    """A watch that notes what it is asked; `together` says whether the neighbours end as well."""

    together = True

    def __init__(self, _processes: Processes) -> None:
        Left.asked = []

    def give_time(self) -> None:
        self.asked.append("time")

    def leave(self) -> bool:
        self.asked.append("leave")
        return self.together


@pytest.fixture
def one_of_two(monkeypatch):
    """The second process of two, whose connections are played; gives what it asked and whether it took them down."""
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    down = []
    monkeypatch.setattr(dist, "rendezvous", lambda *_, **__: iter([(None, 1, 2)]))
    monkeypatch.setattr(distributed, "_meet", lambda *_: None)
    monkeypatch.setattr(dist, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: down.append(True))
    monkeypatch.setattr(distributed, "Watch", Left)
    return down


@pytest.mark.parametrize(
    ("error", "asked"),
    [(None, ["leave"]), (RuntimeError("Connection reset by peer"), ["time", "leave"]), (InputError("a"), ["leave"])],
)
def test_only_a_failed_communication_waits_for_the_watch(error, asked, one_of_two):
    with suppress(RuntimeError, InputError), join("cpu") as processes:
        assert processes == Processes(1, 2, launched=True)
        if error is not None:
            raise error
    assert Left.asked == asked and one_of_two == [True]


def test_connections_stay_while_a_neighbour_goes_on(one_of_two, monkeypatch):
    monkeypatch.setattr(Left, "together", False)
    with join("cpu"):
        pass
    assert Left.asked == ["leave"] and not one_of_two


@pytest.mark.parametrize(("size", "place"), [("1", "0"), ("1", "3")])
def test_a_process_takes_the_gpu_of_its_place_on_the_host(size, place, monkeypatch):
    taken = []
    for name, value in {"RANK": "0", "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "LOCAL_RANK": place}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    with join("auto") as processes:
        assert processes.size == 1 and taken == [int(place)]
    with join("cpu"):
        assert taken == [int(place)], "a run on the CPU takes none"
    monkeypatch.setenv("LOCAL_RANK", "4")
    with pytest.raises(
        InputError, match="process 4 of this host has no GPU, because there are 4; use --nproc-per-node=4"
    ):
        join("cuda").__enter__()


def test_a_process_whose_first_one_never_comes_gives_up(monkeypatch):
    monkeypatch.setattr(distributed, "MEET_S", 0.2)
    store = dist.HashStore()
    store.set("start", "of a dead one")
    with pytest.raises(TimeoutError, match="process 1 waited 0 s for the first process, which did not answer"):
        distributed._meet(store, 1, 2)
