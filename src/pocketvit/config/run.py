"""The configuration of a run: its sections, and the fields above them."""

from dataclasses import dataclass, field, fields
from pathlib import Path

from pocketvit.config.checks import Count, Seed, check_name, check_types
from pocketvit.config.data import AugmentConfig, DataConfig
from pocketvit.config.model import ModelConfig
from pocketvit.config.objective import ObjectiveConfig
from pocketvit.config.training import OptimConfig, ScheduleConfig, TrainConfig
from pocketvit.config.weights import Weights
from pocketvit.errors import InputError


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run."""

    recipe: str = "custom"
    """Name of the recipe that this started from: only a label, used in the name of the run folder."""
    seed: Seed = 0
    """Seed of all randomness in the run."""
    out: Path | None = None
    """Run folder; by default the next free runs/<recipe>-<nnn>."""
    batch_size: Count = 256
    """Images per step, over all processes. Each pass drops its last partial batch, a different one each time."""
    init_from: Weights | None = None
    """Start with the weights of a trained model, a run folder or its model.safetensors, wherever they fit."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        check_types("", self)
        check_name("recipe", self.recipe)
        for name, value, allowed in (
            ("model.patch_drop", self.model.patch_drop, ("teacher",)),
            ("schedule.sides", self.schedule.sides, ("drloc", "teacher")),
        ):
            changed = [
                item.name for item in fields(self.objective) if getattr(self.objective, item.name) != item.default
            ]
            others = [f"objective.{item}={getattr(self.objective, item)}" for item in changed if item not in allowed]
            if self.model.on_grid:
                others.append(self.model.on_grid)
            if value and others:
                raise InputError(f"{name}={value} cannot be combined with {others[0]}")
