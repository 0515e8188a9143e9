"""Any combination of choices: a valid one trains, saves, loads and answers the same; an invalid one is named."""

import dataclasses
import typing
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pocketvit.config import AugmentConfig, ModelConfig, OptimConfig, RunConfig, ScheduleConfig, flatten, override
from pocketvit.data import Split, Splits
from pocketvit.errors import InputError
from pocketvit.recipes import recipe
from pocketvit.training import load_model
from pocketvit.training.progress import SilentReporter
from pocketvit.training.trainer import Trainer
from pocketvit.usercode import Code


def choices(config: type, name: str) -> tuple:
    """The values of a field that is a choice among literals, or among literals and code."""
    values = typing.get_args(typing.get_type_hints(config)[name])
    return typing.get_args(values[0]) if Code in values else values


def optional(strategy):
    return st.none() | strategy


EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
CUSTOM_ATTENTION = Code.read("my_attention.py:MyAttention", EXAMPLES)
OWN = {"block": "ParallelBlock", "optim": "SignSGD", "policy": "dim", "schedule": "square"}
OWN = {part: Code.read(f"my_parts.py:{name}", EXAMPLES) for part, name in OWN.items()}

MODEL = {
    "patch_size": st.sampled_from([2, 4, 8]),
    "patch_stride": optional(st.sampled_from([2, 4])),
    "stem": st.sampled_from(choices(ModelConfig, "stem")),
    "patch_init": st.sampled_from(choices(ModelConfig, "patch_init")),
    "whitening_patches": st.sampled_from(choices(ModelConfig, "whitening_patches")),
    "whitening_pairs": st.booleans(),
    "width": st.sampled_from([24, 32, 48]),
    "depth": st.integers(1, 2),
    "num_heads": st.sampled_from([1, 2, 4, 6]),
    "num_kv_heads": optional(st.sampled_from([1, 2, 3])),
    "q_rank": optional(st.integers(1, 8)),
    "k_rank": optional(st.integers(1, 8)),
    "v_rank": optional(st.integers(1, 8)),
    "kv_rank_shared": optional(st.integers(1, 8)),
    "attention": st.sampled_from([*choices(ModelConfig, "attention"), CUSTOM_ATTENTION]),
    "block": st.sampled_from(["standard", OWN["block"]]),
    "qk_norm": st.booleans(),
    "mlp_ratio": st.sampled_from([0.5, 2.0, 4.0]),
    "activation": st.sampled_from(choices(ModelConfig, "activation")),
    "norm": st.sampled_from(choices(ModelConfig, "norm")),
    "layer_scale": optional(st.sampled_from([1e-4, 0.1])),
    "positions": st.sampled_from(choices(ModelConfig, "positions")),
    "num_cls_tokens": st.integers(1, 3),
    "num_registers": st.integers(0, 2),
    "pool": st.sampled_from(choices(ModelConfig, "pool")),
    "head": st.sampled_from(choices(ModelConfig, "head")),
    "drop_path": st.sampled_from([0.0, 0.3]),
}
AUGMENT = {
    "flip_prob": st.sampled_from([0.0, 0.5]),
    "crop_pad": st.sampled_from([0, 2]),
    "policy": st.sampled_from([*choices(AugmentConfig, "policy"), OWN["policy"]]),
    "skip_ops": st.sampled_from([(), ("rotate", "equalize")]),
    "randaugment_ops": st.integers(1, 3),
    "randaugment_level": st.integers(0, 9),
    "erase_prob": st.sampled_from([0.0, 1.0]),
    "cutmix_prob": st.sampled_from([0.0, 0.5]),
    "mixup_prob": st.sampled_from([0.0, 0.5]),
    "mixup_alpha": st.sampled_from([0.2, 1.0]),
}
OPTIM = {
    "name": st.sampled_from([*choices(OptimConfig, "name"), OWN["optim"]]),
    "decay": st.sampled_from(choices(OptimConfig, "decay")),
    "ema_decay": st.sampled_from([0.0, 0.9]),
    "label_smoothing": st.sampled_from([0.0, 0.1]),
}
SCHEDULE = {"name": st.sampled_from([*choices(ScheduleConfig, "name"), OWN["schedule"]])}
SECTIONS = {"model": MODEL, "augment": AUGMENT, "optim": OPTIM, "schedule": SCHEDULE}
FIELDS = {f"{section}.{name}": values for section, fields in SECTIONS.items() for name, values in fields.items()}
FIELDS["data.repeats"] = st.sampled_from(["fresh", "batch"])

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
SET = Split(IMAGES, np.arange(24) % 3)
SPLITS = Splits(SET, None, SET, ("a", "b", "c"), "synthetic", ())


def base() -> RunConfig:
    return override(recipe("paper"), {"batch_size": 8, "schedule.passes": 2, "schedule.warmup_passes": 0})


def combine(values: dict) -> RunConfig | None:
    """The run, or none where the choices exclude each other; then the refusal must name one of them."""
    try:
        config = override(base(), values)
        return config if Trainer(config, SPLITS, torch.device("cpu"), SilentReporter()) else None
    except InputError as refused:
        assert any(name in str(refused) for name in values), refused
        assert "\n" not in str(refused)
        return None


def test_every_choice_is_drawn():
    """A field added to these sections has to be added here."""
    plain = {"optim.lr", "optim.weight_decay", "optim.betas", "optim.muon_lr", "optim.muon_momentum"}
    plain |= {"augment.erase_area", "augment.erase_aspect", "augment.cutmix_alpha"}
    plain |= {name for name in flatten(RunConfig()) if name.startswith("schedule.") and name != "schedule.name"}
    every = {name for name in flatten(RunConfig()) if name.split(".")[0] in SECTIONS}
    assert every - plain == set(FIELDS) - {"data.repeats"}


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.fixed_dictionaries({}, optional=FIELDS))
def test_any_combination_trains_saves_and_loads(tmp_path_factory, values):
    config = combine(values)
    if config is None:
        return
    trainer = Trainer(config, SPLITS, torch.device("cpu"), SilentReporter())
    trainer.step.set_chunk(trainer.chunks.load(0, 0, 1))
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.lr[:] = 1e-3
    trainer.step.factors.fill_(1.0)
    trainer.step()
    assert torch.isfinite(trainer.step.losses[0])
    assert any(not torch.equal(before[name], p) for name, p in trainer.model.named_parameters())
    trained = trainer.trained()
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    trained.save(path)
    assert torch.equal(load_model(path, allow_code=True).logits(IMAGES), trained.logits(IMAGES))


@settings(max_examples=200, deadline=None)
@given(st.fixed_dictionaries({f"model.{name}": values for name, values in MODEL.items()}))
def test_model_configs_are_made_or_refused_by_name(values):
    try:
        config = override(base(), values).model
    except InputError as refused:
        assert any(name in str(refused) for name in values)
        return
    assert dataclasses.asdict(config) == {name.removeprefix("model."): value for name, value in values.items()}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model.num_kv_heads": 5}, "model.num_heads=12 is not divisible by model.num_kv_heads=5"),
        ({"model.kv_rank_shared": 8, "model.k_rank": 8}, "model.kv_rank_shared=8 cannot stand beside"),
        ({"model.patch_stride": 5}, "model.patch_stride=5 is more than model.patch_size=4"),
        ({"model.patch_stride": 3, "model.patch_size": 8}, "model.patch_stride=3 does not tile"),
        ({"model.positions": "rope", "model.width": 36, "model.num_heads": 6}, "heads of 6 channels"),
        (
            {"model.positions": "sincos", "model.width": 42, "model.num_heads": 6},
            "model.width=42 is not divisible by 4",
        ),
        ({"model.q_rank": 0}, "model.q_rank=0: must be at least 1"),
        ({"schedule.name": "wsd", "schedule.decay_frac": 1.0, "schedule.warmup_passes": 1}, "schedule.decay_frac=1.0"),
        ({"augment.skip_ops": ("rotat",)}, "augment.skip_ops='rotat': must be one of identity, shear_x,"),
        ({"optim.ema_decay": 1.0}, "optim.ema_decay=1.0"),
    ],
)
def test_what_excludes_each_other_is_said(values, words):
    with pytest.raises(InputError) as refused:
        trainer = Trainer(override(base(), values), SPLITS, torch.device("cpu"), SilentReporter())
        trainer.chunks.plan(0)
    assert words in str(refused.value)
