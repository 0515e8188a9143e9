"""Studies on a GPU: one GPU has one lock, whatever it is called."""

import os
import subprocess
import sys

import pytest
import torch

pytestmark = pytest.mark.gpu


def test_the_index_and_the_uuid_of_a_gpu_share_its_lock():
    called = ["0", f"GPU-{torch.cuda.get_device_properties(0).uuid}"]
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        called[0] = os.environ["CUDA_VISIBLE_DEVICES"].split(",")[0]
    code = "from pocketvit.studies.execution.gpu_lock import device_lock; print(device_lock())"
    locks = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"CUDA_VISIBLE_DEVICES": gpu},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for gpu in called
    }
    assert len(locks) == 1 and "pocketvit-gpu-" in locks.pop()
