"""Training, and using what was trained."""

from pocketvit.training.evaluate import evaluate, evaluate_run, predict_files
from pocketvit.training.loop import train
from pocketvit.training.progress import Silent
from pocketvit.training.stop import Stopped
from pocketvit.training.trained import TrainedModel, load_model

__all__ = ["Silent", "Stopped", "TrainedModel", "evaluate", "evaluate_run", "load_model", "predict_files", "train"]
