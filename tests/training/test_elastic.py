"""A run under torchrun outlives its workers and hosts: killed, started again, it ends where an undisturbed one does.

A host is played by a launcher of its own on a loopback address; losing it means killing the launcher and its worker.
"""

import os
import random
import signal
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from launcher import Launcher
from safetensors.torch import load_file
from survival import assert_same_run, count_lines, metrics, wait_for_lines
from worker_processes import together

from pocketvit.config import RunConfig, override
from pocketvit.training import train

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not Launcher.KNOWS_WORKERS, reason="finds the launcher's workers in /proc"),
]

SEVERAL_HOSTS = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""Without it torchrun keeps the address of a lost host as that of the first process."""

LONGER = {
    "model.depth": 1,
    "schedule.passes": 100,
    "train.eval_every_passes": 20,
    "train.checkpoint_every_passes": 3,
    "optim.ema_decay": 0.9,
}


@pytest.fixture
def launch():
    """Starts launchers, and leaves none behind."""
    with ExitStack() as stack:
        yield lambda *options, **environment: stack.enter_context(Launcher(*options, **environment))


@pytest.fixture
def longer(small) -> RunConfig:
    """A run of two processes, long enough to be hit on its way."""
    return override(small, LONGER)


@pytest.fixture(scope="module")
def straight(small_in, tmp_path_factory) -> Path:
    """The folder of the same run on two processes, undisturbed."""
    folder = tmp_path_factory.mktemp("straight")
    config = override(small_in(folder), LONGER)
    together(2, folder, train, config)
    return config.out


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def two_hosts(nodes: str, meeting: int = 0) -> list[list[str]]:
    """Options of torchrun on each of two hosts, with short timeouts; one of them is the meeting point.

    The first process is on the first host, because launchers are ranked by their addresses.
    """
    endpoint = f"127.0.0.1:{free_port()}"
    common = [f"--nnodes={nodes}", "--nproc-per-node=1", "--max-restarts=3"]
    common += ["--rdzv-backend=c10d", "--rdzv-id=test", f"--rdzv-endpoint={endpoint}"]
    timeouts = "last_call_timeout=2,keep_alive_interval=1,keep_alive_max_attempt=3,read_timeout=5"
    return [
        [*common, f"--rdzv-conf={timeouts},is_host={host == meeting}", f"--local-addr=127.0.0.{1 + host}"]
        for host in range(2)
    ]


def test_killed_workers_are_started_again_and_the_run_ends_the_same(longer, straight, launch):
    """Killed while it trains, while the restarted ones begin, and while they train."""
    moments = random.Random()
    launcher = launch(longer, "--standalone", "--nproc-per-node=2", "--max-restarts=3")
    for lines in (5, None, 40):
        if lines is None:
            time.sleep(moments.uniform(0, 2.5))  # in less a fast machine has not trained to the end
        else:
            wait_for_lines(longer.out, lines + moments.randint(0, 9), launcher.running)
            time.sleep(moments.uniform(0, 0.2))
        old = launcher.workers()
        launcher.kill_worker(moments.randrange(2))
        assert launcher.wait_for_new_workers(old) < 30, "the other did not wait for the launcher's patience to end"
    launcher.finish()
    assert_same_run(longer.out, straight)


def test_one_line_says_that_another_process_is_gone(longer, launch):
    launcher = launch(longer, "--standalone", "--nproc-per-node=2", "--max-restarts=0", "--monitor-interval=5")
    wait_for_lines(longer.out, 3, launcher.running)
    launcher.kill_worker(1)
    launcher.finish(1)
    said = launcher.log.read_text()
    assert said.count("another process of the run is gone; process 0 exits") == 1
    assert "RuntimeError" not in said.split("torch/distributed/elastic")[0]


def test_workers_do_not_outlive_their_launcher(longer, launch):
    launcher = launch(longer, "--standalone", "--nproc-per-node=2")
    wait_for_lines(longer.out, 3, launcher.running)
    workers = launcher.workers()
    launcher.process.kill()
    until = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < until, "orphans go on writing into the run folder"
        time.sleep(0.05)
    assert "the launcher is gone" in launcher.log.read_text()


def test_a_batch_systems_sigterm_saves_with_exit_code_143(longer, straight, launch):
    """It reaches the workers directly and once more from the launcher."""
    launcher = launch(longer, "--standalone", "--nproc-per-node=2")
    wait_for_lines(longer.out, 10, launcher.running)
    for pid in [*launcher.workers(), launcher.process.pid]:
        os.kill(pid, signal.SIGTERM)
    launcher.ended(300)
    lines = count_lines(longer.out)
    assert 10 <= lines < 100
    assert f"pocketvit train --resume {longer.out}" in launcher.log.read_text()
    launcher = launch(longer, "--standalone", "--nproc-per-node=2")
    wait_for_lines(longer.out, lines + 1, launcher.running)
    workers = launcher.workers()
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
    launcher.finish(1)
    said = launcher.log.read_text()
    assert "exitcode  : 143" in said, said
    launch(longer, "--standalone", "--nproc-per-node=2").finish()
    assert_same_run(longer.out, straight)


@pytest.mark.parametrize(
    ("lost", "meeting"),
    [(0, 0), (0, 1), pytest.param(1, 0, marks=pytest.mark.nightly)],
    ids=["meeting point", "first process", "neither"],
)
def test_a_lost_host_that_comes_back_goes_on_to_the_same_result(longer, straight, launch, lost, meeting):
    """Losing the host of the meeting point ends the other launcher as well: both are started again."""
    hosts = two_hosts("2", meeting)
    agents = [launch(longer, *options, **SEVERAL_HOSTS) for options in hosts]
    for lines in (10, 50):
        wait_for_lines(longer.out, lines, agents[1 - lost].running)
        agents[lost].lose()
        if lost == meeting:
            assert agents[1 - lost].ended(300) != 0
            agents[1 - lost] = launch(longer, *hosts[1 - lost], **SEVERAL_HOSTS)
        agents[lost] = launch(longer, *hosts[lost], **SEVERAL_HOSTS)
    for agent in agents:
        agent.finish()
    assert_same_run(longer.out, straight)


def test_a_lost_host_that_stays_away_leaves_the_run_to_the_others(longer, straight, launch):
    """One process does the rest of what two began: equal within rounding."""
    agents = [launch(longer, *options, **SEVERAL_HOSTS) for options in two_hosts("1:2")]
    wait_for_lines(longer.out, 20, agents[0].running)
    agents[1].lose()
    agents[0].finish()
    losses = [[line["loss"] for line in metrics(folder)] for folder in (longer.out, straight)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (longer.out, straight))
    for name, tensor in ours.items():
        np.testing.assert_allclose(tensor, theirs[name], rtol=1e-2, atol=1e-2)
