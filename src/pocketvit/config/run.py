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
    """Start with trained weights wherever they fit: a run folder, a file (also of timm's VisionTransformer), hf:OWNER/NAME."""
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
        on_grid = self.model.on_grid
        muon = [f"optim.name={self.optim.name}"] if self.optim.name in ("muon", "soap_muon") else []
        frozen = None if self.train.freeze == "none" else self.train.freeze
        mae = self.objective.name if self.objective.name == "mae" else None
        balance = self.data.balance
        beside = self._objective("teacher", "drloc")
        several = [name for name in beside if self.objective.name == "multilabel"]
        alternating = ["augment.flips=alternating"] if self.augment.flips == "alternating" else []
        for name, value, others in (
            ("objective.name", mae, [*on_grid, *self.model.overlapping]),
            ("model.patch_drop", self.model.patch_drop, [*self._objective("teacher"), *on_grid]),
            ("schedule.sides", self.schedule.sides, [*self._objective("drloc", "teacher", "multilabel"), *on_grid]),
            ("data.balance", balance if balance == "loss" else None, beside),
            ("data.balance", balance if balance == "sampling" else None, [*several, *alternating]),
            ("train.freeze", frozen, [*self._objective("multilabel"), *muon]),
        ):
            if value and others:
                raise InputError(f"{name}={value} cannot be combined with {others[0]}")

        if self.train.patience is not None and not self.data.val_frac:
            raise InputError(
                f"train.patience={self.train.patience} looks at held-out images, and there are none; set data.val_frac, such as "
                "0.1"
            )

    def _objective(self, *left_out: str) -> list[str]:
        """The fields of the objective that are not at their default, as `field=value`, but for some fields or values."""
        items = [item for item in fields(self.objective) if item.name not in left_out]
        values = {item.name: getattr(self.objective, item.name) for item in items}
        return [
            f"objective.{item.name}={values[item.name]}"
            for item in items
            if values[item.name] not in (item.default, *left_out)
        ]
