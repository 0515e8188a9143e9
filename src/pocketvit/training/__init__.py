"""Training, and using what was trained."""

from pocketvit.inference.evaluate import evaluate, evaluate_run, predict_files
from pocketvit.inference.trained_model import TrainedModel, load_model
from pocketvit.training.loop import train
from pocketvit.training.progress import SilentReporter
from pocketvit.training.stop import Stopped

__all__ = [
    "SilentReporter", "Stopped", "TrainedModel", "evaluate", "evaluate_run", "load_model", "predict_files", "train",
]  # fmt: skip
