"""The section `objective`: what training minimizes."""

from dataclasses import dataclass
from typing import Literal

from pocketvit.config.checks import NotNegative, check_types
from pocketvit.config.weights import Weights
from pocketvit.errors import InputError

WITHOUT_LABELS = ("dino", "mae")  # values of `objective.name` whose classifier is a probe beside the training


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """What training minimizes."""

    name: Literal["classification", "multilabel", "dino", "mae"] = "classification"
    """Classification; multilabel, by several classes an image; or without labels, to start others from (init_from): DINO, or a
    masked autoencoder."""
    teacher: Weights | None = None
    """A trained model, a run folder or its model.safetensors, whose answers a token of its own learns (DeiT)."""
    drloc: NotNegative = 0.0
    """Weight of predicting how far apart two patches are from their tokens (Liu et al. 2021); 0 turns it off."""

    def __post_init__(self) -> None:
        check_types("objective", self)
        for field in ("teacher", "drloc"):
            if self.name != "classification" and getattr(self, field):
                raise InputError(
                    f"objective.{field}={getattr(self, field)} has no effect with objective.name={self.name}; "
                    "use it with classification"
                )
