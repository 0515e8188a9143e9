"""The hash of a configuration, and the version of its fields."""

import hashlib
import json

from pocketvit.config.names import flatten
from pocketvit.config.run import RunConfig
from pocketvit.config.weights import RunOf, Weights
from pocketvit.usercode import Code

SCHEMA_VERSION = 1
"""Part of `config_hash`. Raise it when a default changes, because hashes leave defaults out."""

REVISIONS = {("data.repeats", "batch"): 1, ("train.freeze", "encoder"): 1}
"""How often what a choice computes has changed, by field and value: part of the hash of the runs that make it."""

NOT_HASHED = ("recipe", "seed", "out", "data.source", "data.cache_dir", "data.keep", "train.device")
"""Fields that do not affect what is computed, or are counted otherwise: data by its fingerprint."""


def config_hash(config: RunConfig, data_fingerprint: str) -> str:
    """The identity of what a run computes, without its seed: 12 hex digits.

    Fields at their default are left out, so that a new field does not change the hashes of older runs. Code counts by its
    name and its file's content, a trained model by its file's content.
    """
    return _hash(config, data_fingerprint, revised(config))


def earlier_hashes(config: RunConfig, data_fingerprint: str) -> list[str]:
    """What `config_hash` was before each revision of the run's choices, the latest first."""
    revisions = revised(config)
    steps = range(1, max(revisions.values(), default=0) + 1)
    return [_hash(config, data_fingerprint, {name: n - back for name, n in revisions.items()}) for back in steps]


def revised(config: RunConfig) -> dict[str, int]:
    """The run's choices that have been revised, as `field=value`, and how often."""
    fields = flatten(config)
    return {f"{name}={value}": number for (name, value), number in REVISIONS.items() if fields[name] == value}


_IDENTITY = {Code: lambda code: code.identity, **dict.fromkeys((Weights, RunOf), lambda weights: weights.digest)}
"""What counts of values that name files."""


def _hash(config: RunConfig, data_fingerprint: str, revisions: dict[str, int]) -> str:
    defaults = flatten(RunConfig())
    differing = {
        name: _IDENTITY.get(type(value), lambda value: value)(value)
        for name, value in flatten(config).items()
        if value != defaults[name] and name not in NOT_HASHED
    }
    differing |= {name: number for name, number in revisions.items() if number > 0}
    text = json.dumps([SCHEMA_VERSION, data_fingerprint, differing], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
