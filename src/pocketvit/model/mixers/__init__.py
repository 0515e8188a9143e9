"""Token mixers: the layer of a block in which tokens read from each other.

Each has a file in this folder, named as the value of `model.attention` that chooses it, with its class as `MIXER`.
`base.Mixer` says what such a class has to have.
"""

from importlib import import_module
from pkgutil import iter_modules

from torch import nn

from pocketvit.config import ModelConfig
from pocketvit.model.custom import part
from pocketvit.model.mixers.base import Mixer
from pocketvit.model.positions import RotaryPositions

MIXERS: dict[str, type[Mixer]] = {
    name: import_module(f"{__name__}.{name}").MIXER for _, name, _ in iter_modules(__path__) if name != "base"
}


def make_attention(config: ModelConfig, rotary: RotaryPositions | None = None) -> nn.Module:
    """The attention layer that `model.attention` asks for."""
    return part(config.attention, MIXERS)(config, rotary)
