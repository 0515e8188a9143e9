"""PocketViT: train small vision transformers from scratch on small images, fast, and say whether an idea helped.

>>> import pocketvit
>>> result = pocketvit.train(pocketvit.recipe("digits"))
>>> model = pocketvit.create_model("paper", num_cls_tokens=2)

torch is imported when a function that needs it is first asked for.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "InputError": "pocketvit.errors",
    "RunConfig": "pocketvit.config",
    "ModelConfig": "pocketvit.config",
    "DataConfig": "pocketvit.config",
    "AugmentConfig": "pocketvit.config",
    "OptimConfig": "pocketvit.config",
    "ScheduleConfig": "pocketvit.config",
    "TrainConfig": "pocketvit.config",
    "override": "pocketvit.config",
    "load_config": "pocketvit.config",
    "recipe": "pocketvit.recipes",
    "create_model": "pocketvit.model",
    "load_dataset": "pocketvit.data",
    "train": "pocketvit.training",
    "evaluate": "pocketvit.training",
    "load_model": "pocketvit.training",
    "Silent": "pocketvit.training",
}
"""Where each public name lives."""

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pocketvit' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
