"""The end of a pass: the evaluation on held-out images, if one is due, and the pass's line in metrics.jsonl."""

from math import isfinite
from typing import Any

from pocketvit.inference.logits import accuracy, mean_loss, predict_logits
from pocketvit.runs.average_precision import class_precisions, mean_precision
from pocketvit.training.trainer import Trainer


def end_pass(trainer: Trainer) -> float | None:
    """Write the pass's line in metrics.jsonl, and report it; returns its score on held-out images, if measured."""
    line = pass_line(trainer)
    trainer.folder.append_metrics(line)
    trainer.reporter.passed(line)
    return line.get("val_map", line.get("val_accuracy"))


def pass_line(trainer: Trainer) -> dict[str, Any]:
    """The line of metrics.jsonl for the last pass, with accuracy and loss if an evaluation is due."""
    steps = trainer.loader.steps_per_pass
    last_step = trainer.pass_index * steps
    images = last_step * trainer.config.batch_size
    passed = slice(last_step - steps, last_step)
    losses = trainer.step.losses[passed].double()
    logged = {name: float(log[passed].double().nanmean()) for name, log in trainer.step.logged.items()}
    line = {
        "pass": trainer.pass_index,
        "step": last_step,
        "images": images,
        "train_s": trainer.train_s,
        "loss": float(losses.mean()),
        **{name: value for name, value in logged.items() if isfinite(value)},  # JSON knows no infinity
        "lr": float(trainer.lr[last_step - 1]),
        "images_per_s": images / trainer.train_s,
    }
    due = trainer.pass_index % trainer.config.train.eval_every_passes == 0
    if due or trainer.pass_index == trainer.config.schedule.passes:
        name, split = ("val", trainer.splits.val) if trainer.splits.val else ("test", trainer.splits.test)
        logits = predict_logits(trainer.averaged(), split.images, trainer.mean, trainer.std)
        line[f"{name}_accuracy"] = accuracy(logits, split.labels)
        if split.multilabel:
            line[f"{name}_map"] = mean_precision(
                class_precisions(logits.numpy(), split.labels, trainer.splits.class_names)
            )
        if isfinite(loss := mean_loss(logits, split.labels)):
            line[f"{name}_loss"] = loss
    return line
