"""Training: from a configuration to a finished run."""

from pocketvit.training.run import train
from pocketvit.training.stop import Stopped

__all__ = ["Stopped", "train"]
