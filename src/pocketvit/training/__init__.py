"""Training, and using what was trained."""

from pocketvit.training.evaluate import TrainedModel, evaluate, evaluate_run, load_model, predict_files
from pocketvit.training.loop import train
from pocketvit.training.progress import Silent
from pocketvit.training.stop import Stopped

__all__ = ["Silent", "Stopped", "TrainedModel", "evaluate", "evaluate_run", "load_model", "predict_files", "train"]
