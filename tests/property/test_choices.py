"""A value of a choice that nothing implements raises; it never trains something else."""

import dataclasses
import typing
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image

from pocketvit.config import RunConfig, flatten, override
from pocketvit.data import Split, Splits
from pocketvit.data.pixels import resize, to_rgb
from pocketvit.device import choose_device
from pocketvit.errors import InputError
from pocketvit.model.folded import not_fused, plan_of
from pocketvit.model.vit import ViT
from pocketvit.recipes import recipe
from pocketvit.training.progress import SilentReporter
from pocketvit.training.trainer import Trainer

NEEDS = {"model.whitening_patches": {"model.patch_init": "whitening"}}
"""Choices that count only beside another."""
READ = {"data.fit", "data.value_range", "data.background"}
"""Choices that count where files are read, before there is a run."""
LISTS = {"augment.skip_ops"}
"""Choices of several; tests/unit/config holds them against what there is."""
SET = Split(np.zeros((8, 8, 8, 3), np.uint8), np.arange(8) % 2)
SPLITS = Splits(SET, None, SET, ("a", "b"), "made", ())


def is_choice(hint: Any) -> bool:
    return typing.get_origin(hint) is Literal or any(map(is_choice, typing.get_args(hint)))


def choices(config: Any, prefix: str = "") -> list[str]:
    """The dotted names of all fields that are a choice among names."""
    found = []
    for name, hint in typing.get_type_hints(type(config)).items():
        value = getattr(config, name)
        if dataclasses.is_dataclass(value):
            found += choices(value, f"{prefix}{name}.")
        elif is_choice(hint):
            found.append(prefix + name)
    return found


def made_up(name: str) -> RunConfig:
    """A run that asks for what nothing implements, as if its name stood in the annotation alone."""
    small = {
        "batch_size": 4,
        "schedule.passes": 1,
        "schedule.warmup_passes": 0,
        "train.device": "cpu",
        "model.depth": 1,
    }
    config = override(recipe("paper"), small | NEEDS.get(name, {}))
    section, _, leaf = name.rpartition(".")
    object.__setattr__(getattr(config, section), leaf, "made-up")
    return config


@pytest.mark.parametrize("name", [name for name in choices(RunConfig()) if name not in LISTS | READ])
def test_what_nothing_implements_raises(name):
    config = made_up(name)
    assert flatten(config)[name] == "made-up"
    with pytest.raises((InputError, LookupError, ImportError, AssertionError), match="made-up"):
        trainer = Trainer(config, SPLITS, choose_device(config.train.device), SilentReporter())
        trainer.chunks.load(0, 0, 1)


@pytest.mark.parametrize("name", sorted(READ))
def test_what_no_reader_implements_raises(name):
    config = made_up(name).data
    with pytest.raises((LookupError, ValueError)):
        for image in (np.zeros((2, 2), np.uint16), np.zeros((2, 2, 4), np.uint8)):
            resize(to_rgb(Image.fromarray(image), config=config), (4, 4), config)


def test_every_choice_is_found():
    found = choices(RunConfig())
    assert {"model.norm", "optim.name", "data.keep", "schedule.name", "augment.policy", "train.kernels"} <= set(found)
    assert set(found) >= LISTS | READ


@pytest.mark.parametrize("name", ["model.norm", "model.activation"])
def test_the_fused_blocks_leave_what_they_do_not_know(name):
    config, block = made_up(name).model, ViT(recipe("paper").model).blocks[0]
    found = not_fused(config, block, 65, torch.device("cuda"), torch.bfloat16)
    assert found == f"the kernels do not support {name}=made-up"
    with pytest.raises(KeyError, match="made-up"):
        plan_of(config, 65)
