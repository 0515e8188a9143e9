"""Read a finished run, with one-line errors for missing or damaged files.

`pocketvit.runs.folder` lists its files, of which samples.npz and figures.npz may be absent.

Shapes: T test images, K classes, S sample pictures, E error pictures, H W pixels.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pocketvit.config.yaml_text import read_yaml
from pocketvit.errors import InputError
from pocketvit.files import read_arrays, read_json, read_text
from pocketvit.runs.metrics import read_metrics
from pocketvit.runs.result import RunResult

_ARRAYS = {
    "logits": ("f", 2),
    "labels": ("iu", 1, 2),
    **dict.fromkeys(("indices", "error_indices"), ("iu", 1)),
    **dict.fromkeys(("class_names", "files", "train_captions"), ("U", 1)),
    **dict.fromkeys(("train_images", "error_images"), ("u", 4)),
    **dict.fromkeys(("whitening_filters", "patch_filters", "attention_maps"), ("f", 4)),
    **dict.fromkeys(("position_similarity", *(f"singular_values_{name}" for name in "qkv")), ("f", 2)),
    "attention_rows": ("iu", 1),
    "attention_images": ("u", 4),
    "attention_refused": ("U", 0),
}
"""Each array's kinds, by NumPy's names, and its possible numbers of axes."""
FIGURES = tuple(
    name for name in _ARRAYS if name.startswith(("whitening", "patch", "position", "singular", "attention"))
)
"""The arrays of figures.npz."""


@dataclass(frozen=True)
class Predictions:
    """The trained model's outputs on the whole test set."""

    logits: np.ndarray  # float32, (T, K)
    labels: np.ndarray  # the true classes, int64, (T,); or where there may be several, bool, (T, K)
    indices: np.ndarray  # position of each image in the test set, int64, (T,)
    class_names: tuple[str, ...]  # the names of the K classes
    files: tuple[str, ...] | None  # the file or row of each image, T of them; older runs lack them

    @property
    def multilabel(self) -> bool:
        """Whether an image may have several classes."""
        return self.labels.ndim == 2


@dataclass(frozen=True)
class Samples:
    """Pictures for the report, uint8 RGB."""

    train_images: np.ndarray  # augmented training images as the model saw them, (S, H, W, 3)
    train_captions: tuple[str, ...]  # their captions
    error_images: np.ndarray  # misclassified test images, highest loss first, (E, H, W, 3)
    error_rows: np.ndarray  # row of the predictions of each error image, (E,)


@dataclass(frozen=True)
class FinishedRun:
    """The inputs of a report."""

    path: Path
    config_text: str  # the content of config.yaml
    config: dict
    env: dict
    metrics: list[dict]  # one mapping per pass
    result: RunResult
    predictions: Predictions
    samples: Samples | None
    figures: dict[str, np.ndarray]
    """Those of `FIGURES` that the run wrote; see `pocketvit.inference.figures`."""


def refuse_many(folder: Path) -> None:
    """Raise an `InputError` that names the latest finished run if this is a folder of runs, where one is wanted."""
    if runs := sorted(folder.glob("*/model.safetensors"), key=lambda file: file.stat().st_mtime):
        raise InputError(f"{folder} is a folder of runs; give one, such as the latest, {runs[-1].parent}")


def read_run(run_dir: Path, result: RunResult | None = None) -> FinishedRun:
    """Read and check a run folder.

    Args:
        result: the content of result.json if it is not written yet.
    Raises:
        InputError: the folder or one of its files is missing, damaged or incomplete.
    """
    required = ["config.yaml", "env.json", "metrics.jsonl", "predictions.npz"] + ["result.json"] * (result is None)
    missing = [name for name in required if not (run_dir / name).is_file()]
    if missing:
        refuse_many(run_dir)
        raise InputError(f"{run_dir} has no {', '.join(missing)}: a report needs the folder of a finished run")
    config = read_yaml(run_dir / "config.yaml", "config")
    if not isinstance(config, dict):
        raise InputError(f"{run_dir}/config.yaml contains no named fields; expected the configuration of a run")
    result = result or RunResult.read(run_dir / "result.json")
    predictions = _read_predictions(run_dir / "predictions.npz")
    return FinishedRun(
        path=run_dir,
        config_text=read_text(run_dir / "config.yaml"),
        config=config,
        env=read_json(run_dir / "env.json"),
        metrics=read_metrics(run_dir / "metrics.jsonl"),
        result=result,
        predictions=predictions,
        samples=_read_samples(run_dir / "samples.npz", len(predictions.labels)),
        figures=_read_figures(run_dir / "figures.npz", len(predictions.labels)),
    )


def _read_arrays(path: Path, *names: str, needed: bool = True) -> list[Any]:
    """The named arrays of an .npz file; None for absent ones that are not needed."""
    try:
        held = read_arrays(path, lambda _: names)
    except Exception as error:  # it is cut off, damaged, or contains Python objects
        raise InputError(f"{path} cannot be read ({error}); it is damaged or not an .npz file of arrays") from error
    arrays = [held.get(name) for name in names]
    absent = [name for name in names if name not in held]
    if absent and needed:
        raise InputError(f"{path} lacks the arrays {', '.join(absent)}")
    for name, array in zip(names, arrays, strict=True):
        kinds, *axes = _ARRAYS[name]
        if array is None:
            continue
        if array.dtype.kind not in kinds:
            raise InputError(f"{path}: {name} is {array.dtype} {array.shape}; expected NumPy's kind {kinds}")
        if array.ndim not in axes:
            wanted = " or ".join(map(str, axes))
            raise InputError(f"{path}: {name} has shape {array.shape}; expected {wanted} axes")
        if kinds == "f" and not np.isfinite(array).all():
            raise InputError(f"{path}: {name} contains numbers that are not finite")
    return arrays


def _read_predictions(path: Path) -> Predictions:
    logits, labels, indices, class_names = _read_arrays(path, "logits", "labels", "indices", "class_names")
    (files,) = _read_arrays(path, "files", needed=False)
    if files is not None and len(files) != len(labels):
        raise InputError(f"{path}: {len(files)} files for {len(labels)} labels")
    expected = (len(labels), len(class_names))
    if logits.shape != expected or len(indices) != len(labels) or 0 in expected:
        raise InputError(
            f"{path}: logits of shape {logits.shape} do not fit {len(labels)} labels, {len(indices)} indices "
            f"and {len(class_names)} classes; expected {expected}"
        )
    if labels.ndim == 2:
        if labels.shape != expected or labels.max() > 1 or labels.min() < 0 or not labels.any():
            raise InputError(
                f"{path}: labels of shape {labels.shape}, from {labels.min()} to {labels.max()}; expected 0 and 1"
            )
        labels = labels.astype(bool)
    elif labels.min() < 0 or labels.max() >= len(class_names):
        raise InputError(f"{path}: labels from {labels.min()} to {labels.max()}, but {len(class_names)} class names")
    names = None if files is None else tuple(map(str, files))
    return Predictions(logits, labels, indices, tuple(str(name) for name in class_names), names)


def _read_samples(path: Path, num_predictions: int) -> Samples | None:
    if not path.is_file():
        return None
    names = ("train_images", "train_captions", "error_images", "error_indices")
    train_images, captions, error_images, rows = _read_arrays(path, *names)
    for name, images in (("train_images", train_images), ("error_images", error_images)):
        if images.dtype != np.uint8 or images.shape[-1] != 3 or 0 in images.shape[1:]:
            raise InputError(f"{path}: {name} is {images.dtype} {images.shape}; expected uint8 (count, H, W, 3)")
    if len(captions) != len(train_images) or len(rows) != len(error_images):
        raise InputError(f"{path}: train_captions or error_indices do not have one entry for each image")
    if len(rows) and (rows.min() < 0 or rows.max() >= num_predictions):
        raise InputError(f"{path}: error_indices from {rows.min()} to {rows.max()}, but {num_predictions} predictions")
    return Samples(train_images, tuple(str(caption) for caption in captions), error_images, rows)


def _read_figures(path: Path, num_predictions: int) -> dict[str, np.ndarray]:
    if not path.is_file():
        return {}
    arrays = _read_arrays(path, *FIGURES, needed=False)
    figures = {name: array for name, array in zip(FIGURES, arrays, strict=True) if array is not None}
    for name, array in figures.items():
        if array.size == 0 and not name.startswith("attention") or "filters" in name and array.shape[-1] != 3:
            raise InputError(
                f"{path}: {name} has shape {array.shape}; expected (filters, p, p, 3) or numbers in both axes"
            )
    similarity = figures.get("position_similarity")
    if similarity is not None and len(set(similarity.shape)) != 1:
        raise InputError(f"{path}: position_similarity has shape {similarity.shape}; expected (patches, patches)")
    if "attention_maps" in figures:
        _check_attention(path, figures, num_predictions)
    return figures


def _check_attention(path: Path, figures: dict[str, np.ndarray], num_predictions: int) -> None:
    """Refuse maps that do not fit their images."""
    if not {"attention_rows", "attention_images"} <= figures.keys():
        raise InputError(f"{path} has attention_maps, but not both attention_rows and attention_images")
    maps, rows, images = (figures[f"attention_{name}"] for name in ("maps", "rows", "images"))
    if images.dtype != np.uint8 or images.shape[-1] != 3 or 0 in images.shape[1:] or 0 in maps.shape[2:]:
        raise InputError(f"{path}: attention_images is {images.dtype} {images.shape}; expected uint8 (count, H, W, 3)")
    if len(maps) != 2 or not len(rows) == len(images) == maps.shape[1]:
        raise InputError(
            f"{path}: attention_maps has shape {maps.shape}; expected two for each of {len(images)} images"
        )
    if len(rows) and (rows.min() < 0 or rows.max() >= num_predictions):
        raise InputError(f"{path}: attention_rows from {rows.min()} to {rows.max()}, but {num_predictions} predictions")
