"""A name for what a run computes, and the version of the fields that it is made from."""

import hashlib
import json

from pocketvit.config.names import flatten
from pocketvit.config.run import RunConfig
from pocketvit.usercode import Code

SCHEMA_VERSION = 1
"""Part of `config_hash`. Raise it when a default changes, because hashes leave defaults out."""

NOT_HASHED = ("recipe", "seed", "out", "data.source", "data.cache_dir", "data.keep", "train.device")
"""Fields that say who, where and which draw, but not what is computed; the data counts by its fingerprint."""


def config_hash(config: RunConfig, data_fingerprint: str) -> str:
    """A name for what a run computes, apart from its seed: 12 hex digits.

    Fields at their default are left out, so that adding a field does not rename older runs. Code counts by its name
    and its file's content.
    """
    defaults = flatten(RunConfig())
    differing = {
        name: value.identity if isinstance(value, Code) else value
        for name, value in flatten(config).items()
        if value != defaults[name] and name not in NOT_HASHED
    }
    text = json.dumps([SCHEMA_VERSION, data_fingerprint, differing], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
