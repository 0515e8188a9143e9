"""PocketViT: train small vision transformers from scratch on small images, fast, and find out whether an idea helped.

>>> import pocketvit
>>> result = pocketvit.train(pocketvit.recipe("digits"))
>>> model = pocketvit.create_model("paper", num_cls_tokens=2)

torch is imported only when a function that needs it is first used.
"""

import re
from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = [
    "RECIPES", "AugmentConfig", "BarReporter", "DataConfig", "Dataset", "InputError", "LineReporter", "Lion",
    "ModelConfig", "Muon", "ObjectiveConfig", "OptimConfig", "Reporter", "RunConfig", "RunResult", "ScheduleConfig", "Silent",
    "SilentReporter", "Stopped", "Study", "TrainConfig", "TrainedModel", "ViT", "__version__", "create_model", "evaluate",
    "find_study", "load_config", "load_dataset", "load_model", "override", "recipe", "run_study", "tracked", "train",
]  # fmt: skip

if TYPE_CHECKING:
    from pocketvit.config import ModelConfig, RunConfig, load_config, override
    from pocketvit.config.data import AugmentConfig, DataConfig
    from pocketvit.config.objective import ObjectiveConfig
    from pocketvit.config.training import OptimConfig, ScheduleConfig, TrainConfig
    from pocketvit.data import Dataset, load_dataset
    from pocketvit.errors import InputError
    from pocketvit.inference.evaluate import evaluate
    from pocketvit.inference.trained_model import TrainedModel, load_model
    from pocketvit.model import ViT, create_model
    from pocketvit.optim.lion import Lion
    from pocketvit.optim.muon import Muon
    from pocketvit.recipes import RECIPES, recipe
    from pocketvit.runs.result import RunResult
    from pocketvit.studies.definition.choose import find_study
    from pocketvit.studies.definition.grid import Study
    from pocketvit.studies.execution.runner import run_study
    from pocketvit.training import train
    from pocketvit.training.progress import BarReporter, LineReporter, Reporter, Silent, SilentReporter
    from pocketvit.training.stop import Stopped
    from pocketvit.training.tracking import tracked
else:  # hidden from type checkers: with `__getattr__` a misspelt name would pass
    _IMPORTS = re.findall(r"^    from (\S+) import (.+)", __loader__.get_source(__name__), re.MULTILINE)  # those above
    _HOME = {name: module for module, names in _IMPORTS for name in names.split(", ")}

    def __getattr__(name):
        if name not in _HOME:
            raise AttributeError(f"module 'pocketvit' has no attribute {name!r}")
        return getattr(import_module(_HOME[name]), name)

    def __dir__():
        return sorted(__all__)
