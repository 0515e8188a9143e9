"""One run on two GPUs, over NCCL inside the captured step, against one GPU."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from pocketvit.config import override, save_config
from pocketvit.recipes import recipe

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs"),
]


@pytest.mark.parametrize("captured", [False, True], ids=["plain", "captured"])
def test_two_gpus_make_the_run_of_one(made_splits, tmp_path, captured):
    data = tmp_path / "made.npz"
    images, labels = made_splits.train.images, made_splits.train.labels
    np.savez(data, train_images=images, train_labels=labels, test_images=images[:64], test_labels=labels[:64])
    values = {
        "batch_size": 64,
        "model.width": 64,
        "model.depth": 2,
        "model.num_heads": 4,
        "data.source": str(data),
        "data.cache_dir": tmp_path / "cache",
        "schedule.passes": 3,
        "schedule.warmup_passes": 1,
        "train.device": "cuda",
        "train.precision": "fp32",
        "train.compile": False,
        "train.cuda_graph": captured,
    }
    save_config(override(recipe("paper"), values), tmp_path / "config.yaml")
    losses = []
    for count in (1, 2):
        out = tmp_path / f"on-{count}"
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        command = [*launcher, "-m", "pocketvit", "train", "--config", tmp_path / "config.yaml", "--out", out]
        subprocess.run(list(map(str, command)), check=True, timeout=240, env=os.environ | {"OMP_NUM_THREADS": "1"})
        assert json.loads((out / "result.json").read_text())["num_gpus"] == count
        losses.append([json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)
