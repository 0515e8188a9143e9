"""Early stopping, `train.patience`: a run ends when its held-out images have not been classified better for a while.

The weights of the best evaluation are kept, not the last ones. They lie in the checkpoints, so that a resumed run has them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor, nn

from pocketvit.config import TrainConfig

PREFIX = "best."  # of the names of the kept weights in a checkpoint


@dataclass
class Patience:
    """What a run with `train.patience` keeps; without, it keeps nothing and never ends a run."""

    config: TrainConfig
    score: float = 0.0
    """The best accuracy on the held-out images so far; with several classes an image, the best mAP."""
    pass_index: int = 0
    """The pass after which it was measured, from 1; 0 if none was."""
    weights: dict[str, Tensor] = field(default_factory=dict)
    """Of the model then, by name."""

    def look(self, pass_index: int, score: float | None, model: Callable[[], nn.Module]) -> None:
        """Take the evaluation after a pass into account, if there was one, of what `model` makes."""
        if self.config.patience is None or score is None or (self.pass_index and score <= self.score):
            return
        self.score, self.pass_index = score, pass_index
        self.weights = {name: tensor.detach().clone() for name, tensor in model().state_dict().items()}

    def is_over(self, pass_index: int) -> bool:
        """Whether the evaluations since the best one, up to a pass, were too many."""
        if self.config.patience is None or not self.pass_index:
            return False
        every = self.config.eval_every_passes
        return pass_index // every - self.pass_index // every >= self.config.patience

    def note(self, pass_index: int) -> str:
        """That the run is over after a pass, and what it keeps."""
        return (
            f"train.patience ends the run after pass {pass_index}; it keeps the best weights: {self.score:.2%} on the "
            f"held-out images after pass {self.pass_index}"
        )

    def state(self) -> dict[str, Tensor]:
        """The kept weights under their names in a checkpoint."""
        return {PREFIX + name: tensor for name, tensor in self.weights.items()}

    def take(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Take the kept weights from a checkpoint's tensors; returns the others."""
        self.weights = {name.removeprefix(PREFIX): t for name, t in state.items() if name.startswith(PREFIX)}
        return {name: tensor for name, tensor in state.items() if not name.startswith(PREFIX)}
