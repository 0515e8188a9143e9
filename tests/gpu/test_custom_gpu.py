"""Parts of the user's own on a GPU: compiled and captured like the built-in ones, or refused before the first step."""

from pathlib import Path

import pytest
import torch

from pocketvit.config import override
from pocketvit.data import Splits
from pocketvit.errors import InputError
from pocketvit.recipes import recipe
from pocketvit.training.progress import SilentReporter
from pocketvit.training.trainer import Trainer

pytestmark = pytest.mark.gpu

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
OWN = {
    "attention": {"model.attention": f"{EXAMPLES}/my_attention.py:MyAttention"},
    "attention with rope": {"model.attention": f"{EXAMPLES}/my_attention.py:MyAttention", "model.positions": "rope"},
    "block": {"model.block": f"{EXAMPLES}/my_parts.py:ParallelBlock"},
    "optimizer": {"optim.name": f"{EXAMPLES}/my_parts.py:SignSGD", "optim.lr": 1e-4},
    "augmentation": {"augment.policy": f"{EXAMPLES}/my_parts.py:dim"},
    "schedule": {"schedule.name": f"{EXAMPLES}/my_parts.py:square"},
}
STEPS = 4
PLAIN = {"train.compile": False, "train.cuda_graph": False, "train.precision": "fp32"}


def make_trainer(splits: Splits, values: dict) -> Trainer:
    small = {"batch_size": 32, "model.width": 64, "model.depth": 1, "model.num_heads": 4}
    small |= {"schedule.passes": 4, "schedule.warmup_passes": 0}
    return Trainer(override(recipe("paper"), small | values), splits, torch.device("cuda", 0), SilentReporter())


def losses(trainer: Trainer) -> torch.Tensor:
    """The losses of the first steps."""
    trainer.step.set_chunk(trainer.chunks.load(0, 0, trainer.loader.chunk_steps))
    for _ in range(STEPS):
        trainer.step()
    return trainer.step.losses[:STEPS].cpu()


@pytest.mark.parametrize("part", OWN)
def test_an_own_part_compiled_and_captured_equals_plain(part, synthetic_splits):
    torch.compiler.reset()
    fast = make_trainer(synthetic_splits, OWN[part])
    assert fast.step.cuda_graph
    torch.testing.assert_close(
        losses(fast), losses(make_trainer(synthetic_splits, OWN[part] | PLAIN)), rtol=3e-2, atol=3e-2
    )


@pytest.mark.parametrize("compile", [True, False])
def test_what_waits_for_the_gpu_is_refused_where_the_step_is_captured(tmp_path, compile, synthetic_splits):
    (tmp_path / "waits.py").write_text(
        "from pocketvit.model.mixers.standard import Attention\n"
        "class Waits(Attention):\n"
        "    def forward(self, x):\n"
        "        return super().forward(x) * float(x.sum().item() > -1e9)\n"
    )
    waits = {"model.attention": f"{tmp_path}/waits.py:Waits", "train.compile": compile}
    with pytest.raises(InputError, match="waits.py:Waits cannot be"):
        make_trainer(synthetic_splits, waits)
    if not compile:
        losses(make_trainer(synthetic_splits, waits | {"train.cuda_graph": False}))
