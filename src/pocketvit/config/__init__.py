"""The whole description of a run: frozen dataclasses, validated, saved as YAML, hashed.

A `RunConfig` holds one section per part of the road (model, data, augment, optim, schedule, train). Every field has
a dotted name (`optim.lr`) that is the same on the command line (`--optim.lr`), in `config.yaml`, in an ablation row
(`{"optim.lr": 2e-3}`) and in error messages. Defaults are the paper's setting, so a row shows only what differs.

    fields and their checks:  model.py     the section model
                              data.py      the sections data and augment
                              training.py  the sections optim, schedule and train
                              run.py       `RunConfig`, which holds them all
    what is done with them:   names.py     list fields by dotted name, and set them anew
                              files.py     write and read `config.yaml`
                              hashing.py   `config_hash` and `SCHEMA_VERSION`

All public names are imported from here; torch is not needed for any of them.
"""

from pocketvit.config.data import AugmentConfig, DataConfig, Operation
from pocketvit.config.files import from_dict, load_config, save_config, to_dict
from pocketvit.config.hashing import NOT_HASHED, SCHEMA_VERSION, config_hash
from pocketvit.config.model import ModelConfig
from pocketvit.config.names import code_fields, code_of, field_types, flatten, override
from pocketvit.config.run import RunConfig
from pocketvit.config.training import Device, OptimConfig, ScheduleConfig, TrainConfig

__all__ = [
    "NOT_HASHED", "SCHEMA_VERSION", "AugmentConfig", "DataConfig", "Device", "ModelConfig", "Operation",
    "OptimConfig", "RunConfig", "ScheduleConfig", "TrainConfig", "code_fields", "code_of", "config_hash",
    "field_types", "flatten", "from_dict", "load_config", "override", "save_config", "to_dict",
]  # fmt: skip
