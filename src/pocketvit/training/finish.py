"""The end of a run: model, predictions, samples, report and, last, the result."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pocketvit.augment.batch import BatchMaker
from pocketvit.config import config_hash, weights_of
from pocketvit.config.data import MEMORY
from pocketvit.config.weights import Weights
from pocketvit.data import Splits
from pocketvit.data.pixels import one_line
from pocketvit.device import peak_memory_gib
from pocketvit.files import write_arrays
from pocketvit.inference.figures import attention_figures, model_figures
from pocketvit.inference.logits import accuracy, image_losses, per_class_accuracy, right
from pocketvit.inference.trained_model import TrainedModel
from pocketvit.loading.loader import TrainLoader
from pocketvit.runs.average_precision import class_precisions, mean_precision
from pocketvit.runs.balance import class_balance
from pocketvit.runs.metrics import read_metrics
from pocketvit.runs.result import Evaluation, RunResult
from pocketvit.training.patience import Patience
from pocketvit.training.trainer import Trainer

SAMPLE_BATCHES = 8  # batches that the report shows some images of; a batch is mixed as a whole, so several are needed
SAMPLES_PER_BATCH = 5
MAX_ERRORS = 40
MAX_LOOKS = 6  # correct test images whose attention the report shows, and as many errors


def finish(trainer: Trainer, env: dict[str, Any], held: int) -> RunResult:
    """Test the trained model once and write all files of a finished run.

    Args:
        trainer: at the end of its run.
        held: bytes on the GPU that were not the run's, from `watch_memory`.
    Raises:
        InputError: a file cannot be written.
    """
    config, splits, folder = trainer.config, trainer.splits, trainer.folder
    peak_gib = peak_memory_gib(trainer.device, held)  # of training, before the test
    images_seen, trained = int(trainer.step.step) * config.batch_size, trainer.trained()
    logits, labels = trained.logits(splits.test.images), splits.test.labels
    metrics = read_metrics(folder.metrics)
    trained.save(folder.model)
    write_predictions(trainer, trained, logits)
    best = trainer.patience.pass_index or None
    result = RunResult(
        file=folder.result,
        test_accuracy=accuracy(logits, labels),
        best_test_accuracy=max((m["test_accuracy"] for m in metrics if "test_accuracy" in m), default=None),
        images_per_s=images_seen / trainer.train_s,
        curve=tuple(
            Evaluation(m["images"], m["train_s"], m[f"{split}_accuracy"], split, m.get(f"{split}_map"))
            for m in metrics
            for split in ("val", "test")
            if f"{split}_accuracy" in m
        ),
        train_fingerprint=splits.train_fingerprint,
        cautions=tuple(splits.cautions),
        **flip_averages(trained, splits, wanted=config.train.flip_average),
        **held_out(trainer.patience, metrics, multilabel=splits.test.multilabel),
        best_pass=best,
        **by_class(logits, splits),
        recipe=config.recipe,
        seed=config.seed,
        config_hash=config_hash(config, splits.fingerprint),
        data_fingerprint=splits.fingerprint,
        num_params=trainer.model.num_params,
        num_processes=trainer.processes.size,
        num_gpus=trainer.processes.size if trainer.device.type == "cuda" else 0,
        train_s=trainer.train_s,
        images_seen=images_seen,
        images_total=trained.images if weights_of(config) else None,
        peak_memory_gib=peak_gib,
        kernels=trainer.kernels,
        model_digest=Weights.find(folder.model).digest,
        total_s=time.perf_counter() - trainer.started,
        extra={"data_source": MEMORY} if config.data.source == MEMORY else {},  # which `command` does not show
        **{name: env[name] for name in ("device", "versions", "commit", "command")},
    )
    from pocketvit.report.page import write_report  # loads a drawing library

    try:
        write_report(folder.path, result)
    except Exception as error:  # the page can be made again, unlike the run
        trainer.reporter.note(f"there is no report ({one_line(error)}); make it with: pocketvit report {folder.path}")
    result.write()
    return result


def write_predictions(trainer: Trainer, trained: TrainedModel, logits: Tensor) -> None:
    """Write the logits (N, K) of the test images, and the samples and figures that the report shows.

    Raises:
        InputError: a file cannot be written.
    """
    splits, folder, test = trainer.splits, trainer.folder, trainer.splits.test
    write_arrays(
        folder.predictions,
        logits=logits.numpy(),
        labels=test.labels.astype(np.uint8) if test.multilabel else test.labels,
        indices=np.arange(len(test)),
        class_names=np.array(splits.class_names),
        files=np.array(test.files),
    )
    some_right, worst = examples(logits, test.labels)
    save_samples(folder.samples, splits, seen_images(trainer.loader, trained), worst)
    looks = attention_figures(trained, test.images, np.concatenate([some_right, worst[:MAX_LOOKS]]))
    write_arrays(folder.figures, **model_figures(trained.model, trainer.filters), **looks)


def by_class(logits: Tensor, splits: Splits) -> dict[str, Any]:
    """The fields of the result that come from the test images' scores by class."""
    labels, names = splits.test.labels, splits.class_names
    if splits.test.multilabel:
        precisions = class_precisions(logits.numpy(), labels, names)
        return {"test_map": mean_precision(precisions), "class_precisions": precisions}
    return {**class_balance(per_class_accuracy(logits, labels, names), labels.tolist())}


def held_out(patience: Patience, metrics: list[dict[str, Any]], *, multilabel: bool) -> dict[str, float | None]:
    """The fields of the result that were measured on held-out images, if any, with the weights that are kept."""
    best = patience.pass_index
    line = next((line for line in metrics if line["pass"] == best), {}) if best else metrics[-1]
    decisive = {"val_map" if multilabel else "val_accuracy": patience.score} if best else {}  # even if its line is lost
    return {name: line.get(name) for name in ("val_accuracy", "val_map")} | decisive


def flip_averages(trained: TrainedModel, splits: Splits, *, wanted: bool) -> dict[str, float]:
    """The fields of the result on averages over flips, if wanted."""
    measured = {"test": splits.test, "val": splits.val} if wanted else {}
    return {
        f"{name}_accuracy_tta": accuracy(trained.logits(split.images, flip_average=True), split.labels)
        for name, split in measured.items()
        if split is not None
    }


def seen_images(loader: TrainLoader, trained: TrainedModel) -> tuple[np.ndarray, list[str]]:
    """Some training images of the first pass as the model saw them, with their targets.

    Returns:
        uint8 (S, H, W, C), and per image its class, or the shares of two mixed ones.
    """
    plan, images, captions = loader.plan(0), [], []
    mean, std = (torch.tensor(s, dtype=torch.float32, device=loader.device) for s in (trained.mean, trained.std))
    batches = BatchMaker(mean, std, num_classes=len(trained.class_names), label_smoothing=0.0)
    for step in range(min(SAMPLE_BATCHES, loader.steps_per_pass)):
        x, targets, *_ = batches.finish(loader.load(plan, step, 1))
        pixels = (x * std[:, None, None] + mean[:, None, None]) * 255  # (B, C, H, W)
        images.append(pixels[:SAMPLES_PER_BATCH].round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy())
        captions += [_told(row, trained.class_names) for row in targets[:SAMPLES_PER_BATCH].cpu().numpy()]
    return np.concatenate(images), captions


def _told(target: np.ndarray, class_names: tuple[str, ...]) -> str:
    """A target (K,) in words: its class, or classes with their shares."""
    kinds = np.flatnonzero(target > 0.005)
    if not len(kinds):
        return "no class"
    if (target[kinds] > 0.995).all():
        return " + ".join(class_names[k] for k in kinds)
    return " + ".join(f"{class_names[k]} {target[k]:.0%}" for k in kinds)


def examples(logits: Tensor, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Test images for the report.

    Returns:
        rows of some right ones, the first of each of some classes, by class; and of wrong ones, highest loss first. Where an
        image may have several classes, it is right if it has exactly those with 50 % or more, and counts for its first one.
    """
    losses, hits = image_losses(logits, labels).numpy(), right(logits, labels)
    if labels.ndim == 2:
        kinds, shown = labels.argmax(axis=1), np.flatnonzero(hits & labels.any(axis=1))
    else:
        kinds, shown = labels, np.flatnonzero(hits)
    wrong = np.flatnonzero(~hits)
    classes, first = np.unique(kinds[shown], return_index=True)
    spread = np.linspace(0, len(classes) - 1, min(MAX_LOOKS, len(classes))).round().astype(int)
    return shown[first[spread]], wrong[np.argsort(-losses[wrong], kind="stable")][:MAX_ERRORS]


def save_samples(path: Path, splits: Splits, seen: tuple[np.ndarray, list[str]], worst: np.ndarray) -> None:
    """Write augmented training images with captions, and the test images in these rows."""
    write_arrays(
        path,
        train_images=seen[0],
        train_captions=np.array(seen[1]),
        error_images=splits.test.images[worst],
        error_indices=worst,
    )
