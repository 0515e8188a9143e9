"""The configuration of a run: frozen dataclasses, validated, saved as YAML, hashed.

A `RunConfig` has the sections model, data, augment, objective, optim, schedule and train. Every field has a dotted name
(`optim.lr`) that is the same on the command line (`--optim.lr`), in `config.yaml`, in the rows of a study
(`{"optim.lr": 2e-3}`) and in error messages. The defaults are the paper's setting, so a row shows only what differs.

    fields and their checks:  model.py     the section model
                              data.py      the sections data and augment
                              objective.py the section objective
                              training.py  the sections optim, schedule and train
                              weights.py   trained models that a run starts from
                              run.py       `RunConfig`, which holds them all
    operations on them:       names.py     list and override fields by dotted name
                              files.py     write and read `config.yaml`
                              hashing.py   `config_hash` and `SCHEMA_VERSION`

All public names can be imported from here, without torch.
"""

from pocketvit.config.data import AugmentConfig, DataConfig, Operation
from pocketvit.config.files import from_dict, load_config, save_config, to_dict
from pocketvit.config.hashing import NOT_HASHED, SCHEMA_VERSION, config_hash
from pocketvit.config.model import ModelConfig
from pocketvit.config.names import code_fields, code_of, field_types, flatten, override, weights_of
from pocketvit.config.objective import ObjectiveConfig
from pocketvit.config.run import RunConfig
from pocketvit.config.training import Device, OptimConfig, ScheduleConfig, TrainConfig

__all__ = [
    "NOT_HASHED", "SCHEMA_VERSION", "AugmentConfig", "DataConfig", "Device", "ModelConfig", "ObjectiveConfig",
    "Operation", "OptimConfig", "RunConfig", "ScheduleConfig", "TrainConfig", "code_fields", "code_of", "config_hash",
    "field_types", "flatten", "from_dict", "load_config", "override", "save_config", "to_dict",
    "weights_of",
]  # fmt: skip
