"""The section `objective`: what training minimizes."""

from dataclasses import dataclass

from pocketvit.config.checks import NotNegative, check_types
from pocketvit.config.weights import Weights


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """What training minimizes: cross-entropy, and what is added to it."""

    teacher: Weights | None = None
    """A trained model, a run folder or its model.safetensors, whose answers a token of its own learns (DeiT)."""
    drloc: NotNegative = 0.0
    """Weight of predicting how far apart two patches are from their tokens (Liu et al. 2021); 0 turns it off."""

    def __post_init__(self) -> None:
        check_types("objective", self)
