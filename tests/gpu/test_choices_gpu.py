"""Every choice of the design space, compiled and captured in one CUDA graph, against the plain step in fp32."""

from typing import get_args

import pytest
import torch
from block_cases import assert_small
from objective_cases import TEACHER, save_teacher, with_teacher
from training_cases import first_gradients, gradient_errors

from pocketvit.config import RunConfig, field_types, flatten, override
from pocketvit.data import Splits
from pocketvit.recipes import recipe
from pocketvit.training.progress import SilentReporter
from pocketvit.training.trainer import Trainer

pytestmark = pytest.mark.gpu

STEPS = 4
CHOICES = {
    "plain": {},
    "q": {"model.q_rank": 16},
    "k": {"model.k_rank": 16},
    "v": {"model.v_rank": 16},
    "qk": {"model.q_rank": 16, "model.k_rank": 16},
    "kv": {"model.k_rank": 16, "model.v_rank": 16},
    "qkv": {"model.q_rank": 16, "model.k_rank": 16, "model.v_rank": 16},
    "joint latent": {"model.kv_rank_shared": 16},
    "grouped-query": {"model.num_kv_heads": 2},
    "multi-query": {"model.num_kv_heads": 1, "model.qk_norm": True},
    "3 CLS": {"model.num_cls_tokens": 3, "model.num_registers": 2},
    "mean": {"model.pool": "mean"},
    "attention pool": {"model.pool": "attention", "model.head": "mlp"},
    "CLS per class": {"model.pool": "cls_per_class", "model.num_registers": 1},
    "mimetic": {"model.init": "mimetic", "model.positions": "sincos"},
    "repeated blocks": {"model.block_repeats": 3, "model.drop_path": 0.3},
    "depthwise": {"model.depthwise": 3, "model.depth": 2},
    "dropout": {"model.dropout": 0.2, "model.depth": 2},
    "linear": {"model.attention": "linear", "model.num_kv_heads": 2},
    "linear rope": {"model.attention": "linear", "model.positions": "rope", "model.qk_norm": True},
    "sparse": {"model.attention": "sparse", "model.depth": 2},
    "sparse of 256 patches": {
        "model.attention": "sparse",
        "model.patch_size": 2,
        "model.num_kv_heads": 2,
        "model.positions": "rope",
        "model.pool": "mean",
    },
    "locality": {"model.attention": "locality"},
    "sincos": {"model.positions": "sincos"},
    "rope": {"model.positions": "rope"},
    "no positions": {"model.positions": "none", "model.norm": "rmsnorm", "model.layer_scale": 0.1},
    "overlap": {"model.patch_stride": 2},
    "shifted": {"model.stem": "shifted"},
    "shifted overlap": {"model.stem": "shifted", "model.patch_stride": 2, "model.pool": "mean"},
    "conv stem": {"model.stem": "conv"},
    "conv stem of one": {"model.stem": "conv", "model.patch_size": 2, "model.pool": "attention"},
    "patches of 2": {"model.patch_size": 2},
    "patches of 8": {"model.patch_size": 8},
    "patch dropout": {"model.patch_drop": 0.5},
    "patch dropout, mean": {"model.patch_drop": 0.25, "model.pool": "mean", "model.num_registers": 2},
    "smaller images first": {"schedule.sides": (24,)},
    "smaller images first, fewer patches": {
        "schedule.sides": (16, 24),
        "model.patch_drop": 0.5,
        "model.positions": "sincos",
    },
    "whitening": {"model.patch_init": "whitening", "model.activation": "gelu_tanh"},
    "whitening in pairs": {
        "model.patch_init": "whitening",
        "model.whitening_pairs": True,
        "model.whitening_patches": "clean",
        "model.width": 96,
        "model.num_heads": 6,
    },
    "lion": {"optim.name": "lion", "optim.lr": 1e-4},
    "muon": {"optim.name": "muon", "optim.decay": "matrices"},
    "soap muon": {"optim.name": "soap_muon"},
    "soap muon, blocks": {"optim.name": "soap_muon", "optim.soap_blocks": True},
    "sgd": {"optim.name": "sgd", "optim.weight_decay": 1e-4, "schedule.name": "constant"},
    "clipped adam": {"optim.name": "adam", "optim.weight_decay": 1e-4, "optim.grad_clip": 0.1},
    "layer decay": {"optim.layer_decay": 0.5, "optim.decay": "matrices"},
    "cautious adamw": {"optim.cautious_decay": True, "optim.weight_decay": 0.5},
    "cautious lion": {"optim.cautious_decay": True, "optim.name": "lion", "optim.lr": 1e-4},
    "cautious muon": {"optim.cautious_decay": True, "optim.name": "muon"},
    "ema": {"optim.ema_decay": 0.9, "schedule.name": "wsd"},
    "tail average": {"optim.ema_decay": 0.5, "optim.ema_start": 0.01, "optim.ema_share": 0.6},
    "micro-batches": {"train.micro_batch": 24},
    "micro-batches, no kernels": {"train.micro_batch": 24, "model.dropout": 0.1, "model.depth": 2},
    "no augmentation": {
        "augment.flip_prob": 0.0,
        "augment.crop_pad": 0,
        "augment.policy": "none",
        "augment.erase_prob": 0.0,
        "augment.cutmix_prob": 0.0,
        "augment.mixup_prob": 0.0,
    },
    "alternating flips": {"augment.flips": "alternating"},
    "batch augmentation": {"data.repeats": "batch"},
    "randaugment": {"augment.policy": "randaugment", "schedule.name": "linear"},
    "drloc": {"objective.drloc": 0.5},
    "dino": {"objective.name": "dino"},
    "mae": {"objective.name": "mae"},
    "teacher": {"objective.teacher": TEACHER},
    "teacher, smaller images, fewer patches": {
        "objective.teacher": TEACHER,
        "schedule.sides": (24,),
        "model.patch_drop": 0.25,
    },
    "teacher, drloc": {"objective.teacher": TEACHER, "objective.drloc": 0.1, "model.pool": "mean"},
    "trivialaugment": {"augment.policy": "trivialaugment", "optim.label_smoothing": 0.0},
}
for name in ("model.attention", "optim.name"):  # a value that is new, and in none of these
    choice, _ = get_args(field_types(RunConfig)[name])
    for value in {*get_args(choice)} - {flatten(RunConfig())[name], *(values.get(name) for values in CHOICES.values())}:
        CHOICES[value] = {name: value}

PLAIN = {"train.compile": False, "train.cuda_graph": False, "train.precision": "fp32", "train.kernels": "reference"}
ROUNDING = {
    "attention pool": 0.3,
    "dino": 0.3,
    "teacher": 0.4,
    "teacher, drloc": 0.4,
    "teacher, smaller images, fewer patches": 0.4,
}
"""Bound of the gradients' relative errors; else 0.05. To round to bf16 alone makes errors of up to 0.015, but 0.15 with
attention pooling, whose means over all tokens are much alike, before a head with ReLU. A teacher that hesitates between two
classes answers another one in bf16: one of 32 such images makes up to a quarter of its head's gradient. DINO divides cosines by
0.04."""


def started(splits: Splits, values: dict) -> Trainer:
    """A run before its first step."""
    small = {"batch_size": 32, "model.width": 64, "model.depth": 1, "model.num_heads": 4}
    small |= {"schedule.passes": 4, "schedule.warmup_passes": 0}
    trainer = Trainer(override(recipe("paper"), small | values), splits, torch.device("cuda", 0), SilentReporter())
    trainer.step.use_side(trainer.config.schedule.side(0))
    trainer.step.set_chunk(trainer.chunks.load(0, 0, trainer.loader.chunk_steps))
    return trainer


def losses(trainer: Trainer) -> torch.Tensor:
    """The losses of the first steps."""
    for _ in range(STEPS):
        trainer.step()
    return trainer.step.losses[:STEPS].cpu()


@pytest.mark.parametrize("choice", CHOICES)
def test_compiled_and_captured_equals_plain(choice, synthetic_splits, tmp_path):
    torch.compiler.reset()
    teacher = save_teacher(tmp_path / "teacher.safetensors", synthetic_splits.class_names, side=32)
    values = with_teacher(CHOICES[choice], teacher)
    ours, twin = started(synthetic_splits, values), started(synthetic_splits, values | PLAIN)
    assert_small(gradient_errors(first_gradients(ours), first_gradients(twin)), ROUNDING.get(choice, 5e-2))
    torch.testing.assert_close(losses(ours), losses(twin), rtol=3e-2, atol=3e-2)


def test_each_size_of_the_images_has_its_graph(synthetic_splits):
    torch.compiler.reset()
    found, graphs = [], []
    sides = {"schedule.sides": (16, 24), "schedule.passes": 3, "model.patch_drop": 0.25, "augment.flips": "alternating"}
    for values in ({}, PLAIN):
        trainer = started(synthetic_splits, sides | values)
        trainer.model.train()
        for pass_index in range(3):
            trainer.step.use_side(trainer.config.schedule.side(pass_index))
            trainer.step.set_chunk(trainer.chunks.load(pass_index, 0, trainer.loader.chunk_steps))
            graphs.append(trainer.step.graph)
            for _ in range(STEPS):
                trainer.step()
        found.append(trainer.step.losses[: 3 * STEPS].cpu())
    assert len(set(graphs[:3])) == 3 and None not in graphs[:3]
    torch.testing.assert_close(*found, rtol=3e-2, atol=3e-2)
