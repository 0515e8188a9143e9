"""Configuration: dotted names, validation, YAML and the hash."""

import re
from math import inf
from typing import get_args

import numpy as np
import pytest
import yaml

from pocketvit.augment.autoaugment import OPS
from pocketvit.config import (
    NOT_HASHED,
    AugmentConfig,
    Operation,
    RunConfig,
    ScheduleConfig,
    config_hash,
    field_types,
    flatten,
    from_dict,
    load_config,
    override,
    save_config,
    to_dict,
)
from pocketvit.config.checks import Bounds, unknown
from pocketvit.config.hashing import REVISIONS, earlier_hashes, revised
from pocketvit.errors import InputError
from pocketvit.recipes import RECIPES, recipe


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_yaml(name, tmp_path):
    save_config(recipe(name), tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == recipe(name)


def test_every_field_can_be_overridden_by_its_dotted_name():
    config = RunConfig()
    for name, value in flatten(config).items():
        assert override(config, {name: value}) == config


def test_paper_recipe_is_the_papers():
    config = recipe("paper")
    assert (config.batch_size, config.schedule.passes, config.schedule.warmup_passes) == (256, 300, 30)
    assert (config.augment.cutmix_prob, config.augment.mixup_prob) == (0.25, 0.25)
    assert (config.model.width, config.model.depth, config.model.num_heads, config.model.mlp_ratio) == (192, 9, 12, 2.0)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"optim.lrr": 1.0}, "did you mean optim.lr"),
        ({"learning_rate": 1.0}, "unknown field"),
        ({"optim.lr": "fast"}, "optim.lr='fast'"),
        ({"optim.lr": -1.0}, "optim.lr=-1.0: must be greater than 0"),
        ({"data.resize": 10**6}, "data.resize=1000000: must be in [1, 4096]"),
        ({"data.split_seed": 2**63}, "data.split_seed=9223372036854775808: must be in [0, "),
        ({"optim.lr": 10**400}, "optim.lr=inf: must be a number within ±1000000"),
        ({"optim": 1}, "unknown field 'optim'"),
        ({"model.heads": 3}, "unknown field 'model.heads'; did you mean model.num_heads or model.head?"),
        ({"model.pool": "max"}, "must be one of cls, mean"),
        ({"model.num_heads": 7}, "model.width=192 is not divisible by model.num_heads=7"),
        ({"model.num_cls_tokens": 0}, "model.num_cls_tokens=0"),
        *(
            ({f"model.{name}": 193}, f"model.{name}=193 is more than model.width=192, which is already full rank")
            for name in ("q_rank", "k_rank", "v_rank", "kv_rank_shared")
        ),
        *(
            (
                {f"model.{name}": 33, "model.num_kv_heads": 2},
                f"model.{name}=33 is more than 32, which is already full rank with model.num_kv_heads=2 of 16 channels",
            )
            for name in ("k_rank", "v_rank")
        ),
        ({"model.pool": "mean", "model.num_cls_tokens": 2}, "has no effect"),
        ({"model.depth": 1.5}, "model.depth=1.5: must be of type int"),
        ({"model.depth": True}, "model.depth=True"),
        ({"augment.erase_area": [0.4]}, "a list of 2 numbers"),
        ({"augment.erase_area": [0.4, 0.02]}, "augment.erase_area"),
        ({"augment.cutmix_prob": 0.8}, "add up to more than 1"),
        ({"augment.policy": "none", "augment.skip_ops": ["rotat"]}, "augment.skip_ops='rotat': must be one of"),
        ({"augment.skip_ops": "rotate"}, "augment.skip_ops='rotate': must be a list, each one of "),
        ({"optim.betas": 0.9}, "optim.betas=0.9: must be a list of 2 numbers or none"),
        ({"data.val_frac": 1.0}, "data.val_frac=1.0: must be in [0, 1)"),
        ({"schedule.name": "cosin"}, "schedule.name='cosin': must be one of cosine, linear, wsd"),
        ({"schedule.passes": 0}, "schedule.passes=0: must be at least 1"),
        ({"schedule.warmup_passes": -1}, "schedule.warmup_passes=-1: must be at least 0"),
        ({"schedule.warmup_passes": 300}, "must be less than schedule.passes=300"),
        (
            {"schedule.passes": 9},
            "warmup_passes=30 must be less than schedule.passes=9; set --schedule.warmup-frac 0.1",
        ),
        ({"schedule.warmup_frac": 1.0}, "schedule.warmup_frac=1.0"),
        *(
            ({"schedule.time_budget": value}, f"time_budget={value!r}: must be a duration such as 30s, 10m or 1.5h")
            for value in (600, "600", "0s", "0.0h", "-1m", "10min", "1e3s", "10m\n", "none", True)
        ),
        (
            {"schedule.name": "wsd", "schedule.warmup_frac": 0.85},
            "decay_frac=0.2 and schedule.warmup_frac=0.85 do not fit in schedule.passes=300",
        ),
        ({"schedule.warmup_lr": -1e-6}, "schedule.warmup_lr=-1e-06: must be at least 0"),
        ({"schedule.final_lr": -1e-6}, "schedule.final_lr=-1e-06: must be at least 0"),
        ({"schedule.decay_frac": 0.0}, "schedule.decay_frac=0.0: must be in (0, 1]"),
        (
            {"schedule.name": "wsd", "schedule.decay_frac": 0.95},
            "schedule.decay_frac=0.95 and schedule.warmup_passes=30",
        ),
        ({"batch_size": 0}, "batch_size=0"),
        ({"seed": -1}, "seed=-1"),
        *(
            ({"recipe": name}, f"recipe {name!r}: is used in file names")
            for name in ("../../evil", "/evil", "a/b", "..", "", "-o")
        ),
    ],
)
def test_a_wrong_value_is_refused_by_name(values, words):
    with pytest.raises(InputError) as refused:
        override(RunConfig(), values)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_durations_and_what_takes_the_place_of_one(tmp_path):
    for text, seconds in {"30s": 30, "10m": 600, "1.5h": 5400, "0.5s": 0.5}.items():
        assert ScheduleConfig(time_budget=text).budget_s == seconds
    assert ScheduleConfig().budget_s is None
    timed = override(RunConfig(), {"schedule.passes": 60, "schedule.time_budget": "10m"})
    assert timed.schedule.time_budget == "10m"
    assert override(timed, {"schedule.passes": 60}).schedule == ScheduleConfig(passes=60)
    save_config(timed, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == timed


NUMBERS = [name for name, value in flatten(RunConfig()).items() if type(value) in (int, float)]
NUMBERS += ["model.layer_scale", "model.q_rank", "data.resize"]


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_without_bounds_are_refused_by_every_field(name):
    for value in (float("inf"), float("-inf"), float("nan"), 10**21, -(10**21)):
        with pytest.raises(InputError, match=rf"^{name}=({value}|{float(value)}): must be ".replace("+", r"\+")):
            override(RunConfig(), {name: value})
    with pytest.raises(InputError, match="^optim.betas=inf: must be a number within ±1000000$"):
        override(RunConfig(), {"optim.betas": [0.9, float("inf")]})


NUMPYS = {bool: [np.bool_], int: [np.int64, np.uint8, np.array], float: [np.float64, np.array], str: [np.str_]}
NUMPYS |= {tuple: [np.array, lambda value: [np.array(item)[()] for item in value]]}
"""What NumPy has for Python's types."""


def test_every_field_takes_numpys_values():
    given = {"model.q_rank": 8, "model.layer_scale": 0.5, "optim.betas": (0.5, 0.25), "train.compile": True}
    given |= {"data.resize": 16, "data.format": "npz", "augment.skip_ops": ("rotate", "color")}
    config = override(recipe("digits"), given)
    for name, value in flatten(config).items():
        for numpys in NUMPYS.get(type(value), []):
            taken = override(config, {name: numpys(value)})
            assert taken == config
            assert config_hash(taken, "data") == config_hash(config, "data")
            assert to_dict(taken) == to_dict(config) and yaml.safe_dump(to_dict(taken)), name


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model.depth": np.float64(2)}, "model.depth=2.0: must be of type int"),
        ({"model.depth": np.bool_(True)}, "model.depth=True: must be of type int"),
        ({"model.depth": np.array([2])}, "model.depth=[2]: must be of type int"),
        ({"optim.lr": np.float32(-1)}, "optim.lr=-1.0: must be greater than 0"),
        ({"optim.lr": np.float64("nan")}, "optim.lr=nan: must be a number within ±1000000"),
        ({"seed": np.int64(-1)}, "seed=-1: must be in [0, 9223372036854775808)"),
        ({"model.pool": np.str_("max")}, "model.pool='max': must be one of cls, mean"),
    ],
)
def test_numpys_values_are_checked_like_any_other(values, words):
    with pytest.raises(InputError) as refused:
        override(RunConfig(), values)
    assert words in str(refused.value)


def bounds_in(hint) -> list[Bounds]:
    return [found for part in get_args(hint) for found in ([part] if isinstance(part, Bounds) else bounds_in(part))]


BOUNDED = [(name, bounds) for name, hint in field_types(RunConfig).items() for bounds in bounds_in(hint)]


@pytest.mark.parametrize(("name", "bounds"), BOUNDED, ids=str)
def test_the_bounds_beside_a_field_are_enforced(name, bounds):
    outside = {bounds.low - 1, *[bounds.low] * bounds.open_left}
    if bounds.high < inf:
        outside |= {bounds.high + 1, *[bounds.high] * bounds.open_right}
    for value in outside:
        listed = {"optim.betas": [0.5, value], "schedule.sides": [value], "schedule.extended": [value]}
        given = listed.get(name, value)
        with pytest.raises(InputError, match=re.escape(f": must be {bounds}") + "$") as refused:
            override(RunConfig(), {name: given})
        assert str(refused.value).startswith(f"{name}={value}")


def test_an_unknown_name_is_answered_by_few():
    names = [f"field{i:02d}" for i in range(40)]
    assert unknown("field", "zzz", names) == f"unknown field 'zzz'; known: {', '.join(names[:12])}, …"
    assert unknown("field", "zzz", names[:2]) == "unknown field 'zzz'; known: field00, field01"
    assert unknown("flag", "--", names[:1]) == "unknown flag '--'; known: field00"
    assert unknown("field", 1, names[:1]) == "unknown field 1; known: field00"


def test_an_unknown_name_without_its_section_is_answered_by_the_nearest_with_it():
    for name, nearest in (("widht", "model.width"), ("passs", "schedule.passes"), ("lrr", "optim.lr")):
        with pytest.raises(InputError, match=f"^unknown field '{name}'; did you mean {nearest}\\?$"):
            override(RunConfig(), {name: 3})


def test_a_path_with_a_zero_byte_is_refused():
    with pytest.raises(InputError, match=r"^out='a\\x00b': is no path, as it has a zero byte$"):
        override(RunConfig(), {"out": "a\0b"})


def test_text_numbers_from_yaml_are_numbers():
    assert yaml.safe_load("lr: 1e-3") == {"lr": "1e-3"}, "YAML 1.1 reads this as text"
    assert from_dict({"optim": {"lr": "1e-3"}}).optim.lr == 1e-3


def test_lists_become_tuples():
    assert AugmentConfig(skip_ops=["rotate"]).skip_ops == ("rotate",)


def test_the_operations_that_can_be_skipped_are_those_that_there_are():
    assert set(get_args(Operation)) == set(OPS)


def test_grouped_heads_leave_each_projection_its_full_rank():
    ranks = {"q_rank": 192, "k_rank": 32, "v_rank": 32}
    model = override(
        RunConfig(), {f"model.{name}": rank for name, rank in ranks.items()} | {"model.num_kv_heads": 2}
    ).model
    assert (model.q_rank, model.k_rank, model.v_rank) == (192, 32, 32)


def test_a_config_file_that_is_none_is_refused(tmp_path):
    for text, words in (
        ("[1, 2]", "contains no fields"),
        ("a: [", "is not YAML"),
        ("seed: " + "9" * 5000, "is not YAML"),
        ("optim: {lrr: 1}", "optim.lrr"),
        (
            "optim:\n  lr: 1e-3\n  name: lion\n  lr: 1e-4",
            "config .*c.yaml: 'lr' is set twice, again in line 4; remove one",
        ),
        ("optim: {lr: 1e-3}\noptim.lr: 1e-4", "optim.lr is set twice; remove one"),
        ("optim: lion", "^optim='lion' is a section; write its fields below it, such as name: …$"),
        ("1: 2", "unknown field '1'"),
        ("{1: {2: 3}}", "unknown field '1.2'"),
    ):
        (tmp_path / "c.yaml").write_text(text)
        with pytest.raises(InputError, match=words):
            load_config(tmp_path / "c.yaml")
    with pytest.raises(InputError, match="cannot read"):
        load_config(tmp_path / "absent.yaml")


def test_a_section_without_fields_is_all_defaults(tmp_path):
    (tmp_path / "c.yaml").write_text("seed: 3\nmodel:\n  # width: 96\n")
    assert load_config(str(tmp_path / "c.yaml")) == RunConfig(seed=3)


def test_a_newer_schema_is_refused():
    with pytest.raises(InputError, match="schema 99"):
        from_dict(to_dict(RunConfig()) | {"schema": 99})


def test_hash_ignores_who_where_and_which_draw():
    base = config_hash(RunConfig(), "data")
    other = {"recipe": "x", "seed": 5, "out": "there", "train.device": "cpu"}
    other |= {"data.source": "p", "data.cache_dir": "c", "data.keep": "disk"}
    assert set(other) == set(NOT_HASHED)
    assert config_hash(override(RunConfig(), other), "data") == base


def test_hash_sees_the_data_and_every_other_field():
    base, seen = config_hash(RunConfig(), "data"), set()
    changes = {
        "optim.lr": 2e-3,
        "model.depth": 8,
        "augment.flip_prob": 0.0,
        "batch_size": 128,
        "schedule.passes": 200,
        "data.repeats": "batch",
    }
    for name, value in changes.items():
        seen.add(config_hash(override(RunConfig(), {name: value}), "data"))
    seen.add(config_hash(RunConfig(), "other data"))
    assert base not in seen
    assert len(seen) == len(changes) + 1


def test_a_revision_renames_the_runs_that_make_the_choice_alone(monkeypatch):
    batch, fresh = override(RunConfig(), {"data.repeats": "batch"}), RunConfig()
    names = [config_hash(batch, "data"), *earlier_hashes(batch, "data")]
    assert len(set(names)) == 2 and earlier_hashes(fresh, "data") == []
    monkeypatch.setitem(REVISIONS, ("data.repeats", "batch"), 2)
    assert [config_hash(batch, "data"), *earlier_hashes(batch, "data")][1:] == names
    monkeypatch.setitem(REVISIONS, ("optim.name", "muon"), 1)
    muon = override(batch, {"optim.name": "muon"})
    assert revised(muon) == {"data.repeats=batch": 2, "optim.name=muon": 1} and revised(fresh) == {}
    assert len({config_hash(muon, "data"), *earlier_hashes(muon, "data")}) == 3
    monkeypatch.delitem(REVISIONS, ("data.repeats", "batch"))
    assert config_hash(batch, "data") == names[1] == "03090a13ac64"


def test_hash_of_the_defaults_is_pinned():
    """A default that changes without a new schema version would give old runs another meaning under one name."""
    assert config_hash(RunConfig(), "data") == "3625338b3e21"


def test_a_model_counts_by_its_content_wherever_it_lies(tmp_path):
    first, same, other = (tmp_path / f"{name}.safetensors" for name in "abc")
    for path, content in ((first, b"one"), (same, b"one"), (other, b"two")):
        path.write_bytes(content)
    by_path = {path: override(RunConfig(), {"init_from": path}) for path in (first, same, other)}
    hashes = [config_hash(config, "data") for config in (RunConfig(), *by_path.values())]
    assert len({*hashes}) == 3 and hashes[1] == hashes[2]
    assert by_path[first] == by_path[same] != by_path[other]

    folder = tmp_path / "run"
    folder.mkdir()
    save_config(by_path[first], folder / "config.yaml")
    first.unlink()
    held = load_config(folder / "config.yaml")
    assert held == by_path[same] and held.init_from.read() == b"one"
    assert held.init_from.path.parent == folder / "weights"
    with pytest.raises(InputError, match="No such file"):
        by_path[first].init_from.read()
    other.write_bytes(b"three")
    with pytest.raises(InputError, match=f"{other} has changed"):
        save_config(by_path[other], folder / "config.yaml")
