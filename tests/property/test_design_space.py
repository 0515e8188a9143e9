"""Any combination of choices: a valid one trains, saves, loads and answers the same; an invalid one is named."""

import dataclasses
import typing
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st
from objective_cases import save_teacher

from pocketvit.config import RunConfig, field_types, flatten, override
from pocketvit.data import Split, Splits
from pocketvit.errors import InputError
from pocketvit.inference.trained_model import load_model
from pocketvit.kernels.blocks import blocks_reference
from pocketvit.kernels.head import head_loss_reference
from pocketvit.kernels.stem import stem_reference
from pocketvit.model import ViT
from pocketvit.model.ends import head_parts, not_head, not_stem, stem_parts
from pocketvit.model.folded import fold, plan_of, repeated
from pocketvit.recipes import recipe
from pocketvit.training.progress import SilentReporter
from pocketvit.training.trainer import Trainer
from pocketvit.usercode import Code

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
CUSTOM = {
    "model.attention": "my_attention.py:MyAttention",
    "model.block": "my_parts.py:ParallelBlock",
    "augment.policy": "my_parts.py:dim",
    "optim.name": "my_parts.py:SignSGD",
    "schedule.name": "my_parts.py:square",
}
"""Code for the fields that take some; a new one is drawn without, unless it stands here."""

SMALL = {
    "model.patch_size": [2, 4, 8],
    "model.patch_stride": [None, 2, 4],
    "model.width": [24, 32, 48],
    "model.depth": [1, 2],
    "model.block_repeats": [1, 2, 3],
    "model.num_heads": [1, 2, 4, 6],
    "model.mlp_ratio": [0.5, 2.0, 4.0],
    "model.depthwise": [None, 2, 3, 5],
    "model.layer_scale": [None, 1e-4, 0.1],
    "augment.erase_area": [(0.02, 0.4), (0.5, 1.0)],
    "augment.erase_aspect": [(0.3, 1 / 0.3), (1.0, 1.0)],
    "augment.cutmix_prob": [0.0, 0.5],
    "augment.mixup_prob": [0.0, 0.5],
    "objective.teacher": [None, save_teacher(Path(mkdtemp()) / "teacher.safetensors", ("a", "b", "c"))],
    "schedule.passes": [2, 3],
    "schedule.time_budget": [None],  # has chosen the passes before anything is built
    "schedule.warmup_passes": [0, 1],
    "schedule.sides": [(), (8,), (8, 12)],
}
"""What is drawn of fields whose values must fit each other, or make a model too large for a test."""


def choices(hint) -> list:
    """The names that a field of this type may hold."""
    inner = typing.get_args(hint)
    return (
        list(inner) if typing.get_origin(hint) is typing.Literal else [name for part in inner for name in choices(part)]
    )


def drawn(hint, code: list[Code]):
    """What a field of this type may hold, bounds included; numbers without an end are small."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        kind, bounds = inner
        if kind is int:
            return st.integers(bounds.low, bounds.high if bounds.high < 100 else bounds.low + 3)
        high = min(bounds.high, bounds.low + 1)
        ends = [end for end, is_open in ((bounds.low, bounds.open_left), (high, bounds.open_right)) if not is_open]
        return st.sampled_from(
            [bounds.low + (high - bounds.low) * part for part in (0.1, 0.5)] + list(map(float, ends))
        )
    if origin is typing.Literal:
        return st.sampled_from(inner)
    if origin is tuple and inner[1] is Ellipsis:
        return st.lists(drawn(inner[0], code), max_size=2, unique=True).map(tuple)
    if origin is tuple:
        return st.tuples(*(drawn(part, code) for part in inner))
    if inner:
        return st.one_of([drawn(part, code) for part in inner if code or part is not Code])
    numbers = {int: st.integers(0, 3), float: st.sampled_from([0.1, 1.0])}
    return {bool: st.booleans(), type(None): st.none(), Code: st.sampled_from(code or [None]), **numbers}[hint]


def strategy(name: str):
    code = [Code.read(CUSTOM[name], EXAMPLES)] if name in CUSTOM else []
    return st.sampled_from(SMALL[name]) if name in SMALL else drawn(field_types(RunConfig)[name], code)


SECTIONS = ("model", "augment", "objective", "optim", "schedule")
FIELDS = {name: strategy(name) for name in flatten(RunConfig()) if name.startswith(SECTIONS)}
FIELDS["data.repeats"] = st.sampled_from(["fresh", "batch"])
FIELDS["train.micro_batch"] = st.sampled_from([None, 1, 3, 8])

SMALL_MODEL = {
    "model.width": 32,
    "model.depth": 2,
    "model.num_heads": 2,
}  # the second block reads what the first one made
DEVICE = torch.device("cpu")

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
    """Also those of a field that is added to these sections."""
    every = {name for name in flatten(RunConfig()) if name.split(".")[0] in SECTIONS}
    assert every == set(FIELDS) - {"data.repeats", "train.micro_batch"}
    for name, values in FIELDS.items():
        for choice in choices(field_types(RunConfig)[name]):
            find(values, lambda value, choice=choice: choice in (value if isinstance(value, tuple) else [value]))
    for name in CUSTOM:
        find(FIELDS[name], lambda value: isinstance(value, Code))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.fixed_dictionaries({}, optional=FIELDS))
def test_any_combination_trains_saves_and_loads(tmp_path_factory, values):
    config = combine(values)
    if config is None:
        return
    trainer = Trainer(config, SPLITS, torch.device("cpu"), SilentReporter())
    trainer.model.train()
    trainer.step.use_side(config.schedule.side(0))
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
@given(st.fixed_dictionaries({name: values for name, values in FIELDS.items() if name.startswith("model.")}))
def test_model_configs_are_made_or_refused_by_name(values):
    try:
        config = override(base(), values).model
    except InputError as refused:
        assert any(name in str(refused) for name in values)
        return
    assert dataclasses.asdict(config) == {name.removeprefix("model."): value for name, value in values.items()}


def with_kernels(model: ViT, images: torch.Tensor) -> torch.Tensor | None:
    """The loss of images by the plain forms of the kernels that would run the model's parts; None if none would."""
    with pytest.MonkeyPatch.context() as patch:  # as if they ran on the CPU
        for module in ("launch", "blocks", "attention"):
            patch.setattr(f"pocketvit.kernels.{module}.INTERPRETED", True)
        if model.block_kernels(DEVICE, images.dtype).name == "reference":
            return None
        with_stem, with_head = (why is None for why in (not_stem(model.tokens, DEVICE), not_head(model, DEVICE)))
    tokens = stem_reference(images, *stem_parts(model.tokens)) if with_stem else model.tokens(images)
    weights, taken = repeated(fold(model.blocks), model.config.block_repeats), model.tokens.num_read
    tokens = blocks_reference(tokens, None, weights, plan_of(model.config, tokens.shape[1], taken or tokens.shape[1]))
    targets = torch.eye(model.num_classes)[: len(images)]
    if with_head:
        return head_loss_reference(tokens, targets, *head_parts(model, 1.0))[0]
    return torch.nn.functional.cross_entropy(model.classify(model.norm(tokens)), targets, reduction="sum")


@pytest.mark.parametrize("name", [name for name in FIELDS if name.startswith("model.")])
def test_a_field_has_its_effect_in_the_kernels_or_turns_them_off(name):
    """A kernel that does not know of a field would train as if it were not there."""
    pytest.importorskip("triton")
    images = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    plain = ViT(override(base(), SMALL_MODEL).model, image_size=(8, 8), num_classes=3)
    assert with_kernels(plain, images) is not None

    @settings(max_examples=5, deadline=None, derandomize=True, database=None)
    @given(FIELDS[name])
    def check(value):
        try:
            config = override(base(), SMALL_MODEL | {name: value}).model
            model = ViT(config, image_size=(8, 8), num_classes=3, generator=torch.Generator().manual_seed(0))
        except InputError:
            return
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        found = with_kernels(model, images)
        if found is not None:
            plain = torch.nn.functional.cross_entropy(model(images), torch.eye(3), reduction="sum")
            torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-4)

    check()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model.num_kv_heads": 5}, "model.num_heads=12 is not divisible by model.num_kv_heads=5"),
        ({"model.kv_rank_shared": 8, "model.k_rank": 8}, "model.kv_rank_shared=8 cannot be combined with"),
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
