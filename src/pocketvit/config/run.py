"""A run: its sections together, and the fields that stand above them."""

from dataclasses import dataclass, field
from pathlib import Path

from pocketvit.config.checks import Count, Seed, check_name, check_types
from pocketvit.config.data import AugmentConfig, DataConfig
from pocketvit.config.model import ModelConfig
from pocketvit.config.training import OptimConfig, ScheduleConfig, TrainConfig


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run."""

    recipe: str = "custom"
    """Name of the recipe that this started from: a label, not an input, by which the run folder is called."""
    seed: Seed = 0
    """Seed of everything random in the run."""
    out: Path | None = None
    """Run folder; by default the next free runs/<recipe>-<nnn>."""
    batch_size: Count = 256
    """Images per step, over all processes. What a pass has left beyond whole batches it leaves out, others each time."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        check_types("", self)
        check_name("recipe", self.recipe)
