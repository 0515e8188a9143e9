"""One run on two GPUs, over NCCL inside the captured step, against one GPU; and what happens when one is lost."""

import json

import numpy as np
import pytest
import torch
from launcher import Launcher
from survival import assert_same_run, metrics, wait_for_lines

from pocketvit.config import override

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")]

NCCL = {"NCCL_NVLS_ENABLE": "0"}
"""Sums in the switch are left off: not every host with NVLink offers them to a container."""


@pytest.mark.parametrize("captured", [False, True], ids=["plain", "captured"])
def test_two_gpus_make_the_run_of_one(small, tmp_path, captured):
    config = override(small, {"train.precision": "fp32", "train.cuda_graph": captured, "train.deterministic": False})
    losses = []
    for count in (1, 2):
        on_count = override(config, {"out": tmp_path / f"on-{count}"})
        with Launcher(on_count, "--standalone", f"--nproc-per-node={count}", **NCCL) as launcher:
            launcher.finish()
        assert json.loads((on_count.out / "result.json").read_text())["num_gpus"] == count
        losses.append([line["loss"] for line in metrics(on_count.out)])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)


def test_two_gpus_with_persistent_kernels_make_the_run_of_one(small, tmp_path):
    """Gradients are summed in the optimizer's array, inside the captured step."""
    config = override(small, {"model.width": 192, "model.num_heads": 12, "train.kernels": "persistent"})
    config = override(config, {"train.precision": "bf16", "train.deterministic": False})
    losses = []
    for count in (1, 2, 2):
        on_count = override(config, {"out": tmp_path / f"run-{len(losses)}"})
        with Launcher(on_count, "--standalone", f"--nproc-per-node={count}", **NCCL) as launcher:
            launcher.finish()
        losses.append([line["loss"] for line in metrics(on_count.out)])
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-2)
    assert losses[1] == losses[2], "the same bits"


def test_a_killed_worker_is_started_again_and_the_run_ends_the_same(small, tmp_path):
    """The one that is left waits on its GPU for the dead one, in a captured exchange that nothing times out."""
    values = {"schedule.passes": 400, "train.eval_every_passes": 100, "train.checkpoint_every_passes": 5}
    straight, killed = (override(small, values | {"out": tmp_path / name}) for name in ("straight", "killed"))
    options = ("--standalone", "--nproc-per-node=2", "--max-restarts=2")
    with Launcher(straight, *options, **NCCL) as launcher:
        launcher.finish()
    with Launcher(killed, *options, **NCCL) as launcher:
        for place, lines in enumerate((20, 100)):
            wait_for_lines(killed.out, lines, launcher.running)
            old = launcher.workers()
            launcher.kill_worker(place)
            assert launcher.wait_for_new_workers(old) < 15, "the other did not wait for the launcher's patience to end"
        launcher.finish()
    assert_same_run(killed.out, straight.out)
