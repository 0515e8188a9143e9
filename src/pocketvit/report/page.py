"""The report of one run: `report.html`, a self-contained page.

The page loads no other file and runs no script, and its content security policy forbids both, so it can be mailed,
printed or opened from a USB stick. All texts from the run (class names, captions, commands) are escaped. The same run
folder gives the same bytes.
"""

import shlex
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pocketvit.config.data import MEMORY
from pocketvit.files import write_atomically
from pocketvit.report import multilabel, text
from pocketvit.report.by_class import classes, confusions
from pocketvit.report.calibration import calibration
from pocketvit.report.curves import accuracy_curves, pass_curves
from pocketvit.report.inside import attention, first_layer, low_rank
from pocketvit.report.pictures import picture
from pocketvit.report.scores import confusion_matrix, log_softmax, wilson_interval
from pocketvit.report.templating import page_environment
from pocketvit.runs.balance import balance_lines
from pocketvit.runs.finished import FinishedRun, Samples, read_run
from pocketvit.runs.hardware import device
from pocketvit.runs.result import RunResult

# K is the number of classes, T the number of test images.


def write_report(run_dir: Path, result: RunResult | None = None) -> Path:
    """Write `report.html` into a run's folder.

    Args:
        run_dir: the run folder with config.yaml, env.json, metrics.jsonl and predictions.npz; samples.npz and
            figures.npz are optional.
        result: the content of result.json if it is not written yet; by default it is read.
    Returns:
        the path of the page.
    Raises:
        InputError: a file is missing or damaged, or the page cannot be written.
    """
    run = read_run(Path(run_dir), result)
    page = run.path / "report.html"
    write_atomically(page, render(run).encode(errors="backslashreplace"))  # half a pair is no letter of UTF-8
    return page


def render(run: FinishedRun) -> str:
    """The page as HTML."""
    predictions = run.predictions
    decimals = text.percent_decimals(len(predictions.labels))
    scores = _scores_of_several(run) if predictions.multilabel else _scores_of_one(run)
    page = page_environment().get_template("report.html.j2")
    return page.render(
        result=run.result,
        title=_title(run),
        class_names=predictions.class_names,
        multilabel=predictions.multilabel,
        cautions=[*run.result.cautions, *balance_lines(vars(run.result))],
        curves=accuracy_curves(run.result.curve, decimals, run.metrics)
        + pass_curves(run.metrics, 2 if predictions.multilabel else len(predictions.class_names), _smoothing(run)),
        train_images=_train_images(run.samples),
        sheets=first_layer(run.figures),
        low_rank=low_rank(run.figures),
        rerun=_rerun(run),
        config_text=run.config_text.strip(),
        environment=flat({"versions": run.result.versions} | run.env),
        **scores,
    )


def _scores_of_one(run: FinishedRun) -> dict[str, Any]:
    """What follows from the predictions where an image has one class."""
    predictions, smoothing = run.predictions, _smoothing(run)
    labels, names = predictions.labels, predictions.class_names
    log_probabilities = log_softmax(predictions.logits)  # (T, K)
    predicted = log_probabilities.argmax(axis=1)  # (T,)
    matrix = confusion_matrix(labels, predicted, len(names))
    true = log_probabilities[np.arange(len(labels)), labels]  # (T,)

    def error(row: int) -> dict[str, Any]:
        return {
            "true": names[labels[row]],
            "predicted": names[predicted[row]],
            "true_probability": float(np.exp(true[row])),
            "predicted_probability": float(np.exp(log_probabilities[row, predicted[row]])),
        }

    return {
        "headline": _headline(run, int(np.trace(matrix))),
        "facts": _facts(run, -true.mean(), "cross-entropy, in nats"),
        "confusions": confusions(matrix, names),
        "classes": classes(matrix, names),
        "calibration": calibration(log_probabilities, labels, smoothing),
        "attention": attention(run.figures, predictions, np.exp(log_probabilities)),
        "errors": _errors(run, error),
        "num_errors": int((predicted != labels).sum()),
    }


def _scores_of_several(run: FinishedRun) -> dict[str, Any]:
    """What follows from the predictions where an image may have several classes."""
    predictions = run.predictions
    return {
        "headline": multilabel.headline(run.result, predictions),
        "facts": _facts(run, multilabel.test_loss(predictions), "binary cross-entropy, in nats"),
        "classes": multilabel.classes(predictions),
        "attention": attention(run.figures, predictions, multilabel.probabilities(predictions.logits)),
        "errors": _errors(run, partial(multilabel.error, predictions)),
        "num_errors": int(((predictions.logits >= 0) != predictions.labels).any(axis=1).sum()),
    }


def _source(run: FinishedRun) -> str:
    """The source of the data in the configuration; empty if there is none."""
    return str(setting(run, "data", "source") or "")


def setting(run: FinishedRun, section: str, name: str) -> object:
    """A field of the configuration; None if it is absent."""
    fields = run.config.get(section)
    return fields.get(name) if isinstance(fields, dict) else None


def _smoothing(run: FinishedRun) -> object:
    """The label smoothing that the loss is against; None if unknown, or if half of the loss is a teacher's answers."""
    return None if setting(run, "objective", "teacher") else setting(run, "optim", "label_smoothing")


def _title(run: FinishedRun) -> str:
    """The recipe, and the data set if it has another name."""
    recipe, data = run.result.recipe, Path(_source(run)).name
    return f"{recipe} on {data}" if data not in ("", recipe, MEMORY) else recipe


def _rerun(run: FinishedRun) -> str:
    """The command that repeats the run, for the folder that it was started in."""
    config = Path(str(run.env.get("folder", run.path))) / "config.yaml"
    allow_code = ["--allow-code"] if run.env.get("code") else []
    return shlex.join(["pocketvit", "train", "--config", str(config), *allow_code])


def _headline(run: FinishedRun, num_right: int) -> dict:
    """The accuracy after the last step with its interval, and whether the stored predictions agree."""
    total = len(run.predictions.labels)
    accuracy = run.result.test_accuracy
    right = round(accuracy * total)
    low, high = wilson_interval(right, total)
    return {
        "figure": accuracy,
        "decimals": text.percent_decimals(total),
        "low": low,
        "high": high,
        "right": right,
        "total": total,
        # Rounding may change an image or so; more means that the files are from different runs.
        "disagreement": num_right / total if abs(num_right - right) > 1 + total // 1000 else None,
    }


def _facts(run: FinishedRun, test_loss: float, loss: str) -> list[tuple[str, str, str]]:
    """Name, value and remark of each fact beside the headline."""
    result, env = run.result, run.env
    labels = run.predictions.labels
    decimals = text.percent_decimals(len(labels))
    source, fingerprint = _source(run), result.data_fingerprint[:12]
    facts = [
        ("Training time", text.duration(result.train_s), f"{text.duration(result.total_s)} in total"),
        ("Speed", f"{text.count(result.images_per_s)} images/s", "including augmentation"),
        ("Images seen", text.count(result.images_seen), f"{run.metrics[-1]['pass']:,} passes"),
        ("Device", device(result), ""),
        ("Parameters", text.count(result.num_params), ""),
        ("Data", source or fingerprint, fingerprint if source else ""),
        ("Test loss", f"{test_loss:.3f}", loss),
        ("Seed", str(result.seed), f"configuration {result.config_hash[:12]}"),
    ]
    if result.commit:
        facts.append(("Commit", result.commit[:10], "with uncommitted changes" if env.get("dirty") else ""))
    if result.val_accuracy is not None:
        remark, score = "on held-out training images", "accuracy" if result.val_map is None else "mAP"
        value = result.val_accuracy if result.val_map is None else result.val_map
        facts.append((f"Validation {score}", text.percent(value, decimals), remark))
    if result.test_map is None and result.best_test_accuracy is not None and len(result.curve) > 1:
        remark = "test accuracy, biased upward"
        facts.append(("Best evaluation", text.percent(result.best_test_accuracy, decimals), remark))
    if result.test_accuracy_tta is not None:
        remark = "test accuracy by the mean logits of each image and its mirror image"
        facts.append(("Flip average", text.percent(result.test_accuracy_tta, decimals), remark))
    if result.peak_memory_gib is not None:
        facts.append(("Peak GPU memory", f"{result.peak_memory_gib:.2f} GiB", ""))
    if result.kernels is not None:
        facts.append(("Kernels", result.kernels, "of the blocks"))
    return facts


def _train_images(samples: Samples | None) -> list[dict]:
    """Augmented training images with their captions."""
    if samples is None:
        return []
    pairs = zip(samples.train_images, samples.train_captions, strict=True)
    return [picture(image) | {"caption": caption} for image, caption in pairs]


def _errors(run: FinishedRun, describe: Callable[[int], dict[str, Any]]) -> list[dict]:
    """The misclassified images, each with what `describe` says of its row of the predictions."""
    samples, predictions = run.samples, run.predictions
    if samples is None:
        return []
    return [
        picture(image)
        | describe(row)
        | {"file": predictions.files[row] if predictions.files else f"image {predictions.indices[row]}"}
        for image, row in zip(samples.error_images, samples.error_rows, strict=True)
    ]


def flat(values: Mapping, prefix: str = "") -> list[tuple[str, str]]:
    """Nested fields as (dotted name, text), in order."""
    rows = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows += flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", str(value)))
    return rows
