"""A run starts without PyTorch's compiler, and its kernels are compiled ahead."""

import subprocess
import sys

import pytest
import torch
from batch_cases import FORMS, Form, assert_equals_the_twin

from pocketvit.config import override
from pocketvit.training.progress import SilentReporter
from pocketvit.training.trainer import Trainer

pytestmark = pytest.mark.gpu

ONE_STEP = """
import sys
from pathlib import Path
from pocketvit.bench.start import main
main(Path(sys.argv[1]))
print("loaded" if "torch._dynamo" in sys.modules else "absent")
"""


@pytest.mark.parametrize("form", [*FORMS, Form(2, 255, 32, 32, 3, 10, 0.1), Form(1, 33, 96, 96, 3, 10, 0.1)], ids=str)
def test_batch_kernel_equals_the_twin(form):
    assert_equals_the_twin(form, torch.bfloat16, atol=1e-6, device="cuda")


def test_pytorchs_compiler_is_not_loaded(small, tmp_path):
    from pocketvit.config import save_config

    file = tmp_path / "config.yaml"
    save_config(override(small, {"train.compile": None, "train.deterministic": False}), file)
    done = subprocess.run([sys.executable, "-c", ONE_STEP, str(file)], capture_output=True, text=True)
    assert done.stdout.split() == ["done", "absent"], done.stderr


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_first_step_compiles_no_block_kernel(small, synthetic_splits, optimizer):
    from pocketvit.kernels import attention_triton, blocks_triton, fold_triton, weight_gradients_triton

    kernels = [
        kernel
        for module in (attention_triton, blocks_triton, fold_triton, weight_gradients_triton)
        for name, kernel in vars(module).items()
        if name.endswith("_kernel")
    ]
    assert len(kernels) == 9

    def compiled() -> list[int]:
        return [len(caches[0]) for kernel in kernels for caches in kernel.device_caches.values()]

    config = override(small, {"optim.name": optimizer, "model.width": 96, "train.deterministic": False})
    trainer = Trainer(config, synthetic_splits, torch.device("cuda", 0), SilentReporter())
    before = compiled()
    assert len(before) == len(kernels), "all are compiled by now"
    trainer.model.train()
    trainer.step.set_chunk(trainer.chunks.load(0, 0, 2))
    trainer.step()
    assert compiled() == before
