"""Evaluate a trained model on a data set, evaluate a saved run, and classify files."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice, zip_longest
from os.path import isdir
from pathlib import Path
from shlex import quote
from typing import Any, NotRequired

import numpy as np

from pocketvit.config import DataConfig, load_config
from pocketvit.config.checks import describe_size
from pocketvit.config.shipped import find_run
from pocketvit.data import Dataset, Split, open_dataset, open_splits, open_to_measure
from pocketvit.data.dataset import MappedRows, note_shared
from pocketvit.data.memory import Data, load_from_memory
from pocketvit.data.pixels import decode, resize
from pocketvit.data.raw_splits import is_image, visible_files
from pocketvit.data.sources import lasting_source
from pocketvit.data.splits import split_dataset
from pocketvit.device import choose_device
from pocketvit.errors import InputError
from pocketvit.files import path_of
from pocketvit.inference.logits import accuracy, per_class_accuracy
from pocketvit.inference.trained_model import TrainedModel, load_model
from pocketvit.runs.average_precision import class_precisions, mean_precision
from pocketvit.runs.balance import NOT_COUNTED, Balance, class_balance
from pocketvit.runs.result import RunResult


class Scores(Balance):
    """The scores of a model on the test images of a data set."""

    images: int
    """Number of images."""
    accuracy: float
    """Where an image may have several classes, the share of images with exactly their classes."""
    per_class: dict[str, float]
    """Accuracy; where an image may have several classes, average precision."""
    map: NotRequired[float]
    """The mean of these; only where an image may have several classes."""


class RunScores(Scores):
    """The scores of a finished run's model."""

    notes: tuple[str, ...]
    """Notes to print on the data; one that begins with CAUTION says that images are, or may be, training images."""


def evaluate(trained: TrainedModel, data: Data) -> Scores:
    """Accuracy on a data set's test images, overall and by class; average precision where they may have several classes.

    Args:
        trained: the model, from `load_model`.
        data: from `load_dataset`, or images in memory as for `train`; without a test split, all are used.
    Raises:
        InputError: the classes or the image size are not the model's, or these are a run folder and a source, not loaded.
    """
    if not isinstance(trained, TrainedModel):
        raise InputError(f"{trained!r} is not a trained model; load one with pocketvit.load_model(RUN_FOLDER)")
    dataset = load_from_memory(data, test_frac=1, class_names=trained.class_names)
    _check_fits(trained, dataset)
    logits, labels = trained.logits(dataset.test.images), dataset.test.labels
    if trained.multilabel:
        if not labels.any():
            raise InputError(f"no image of {dataset.name} has a class, so average precision cannot be measured")
        precisions = class_precisions(logits.numpy(), labels, trained.class_names)
        return {
            "images": len(labels),
            "accuracy": accuracy(logits, labels),
            "map": mean_precision(precisions),
            "per_class": precisions,
            **NOT_COUNTED,
        }
    per_class = per_class_accuracy(logits, labels, trained.class_names)
    balance = class_balance(per_class, labels.tolist())
    return {"images": len(labels), "accuracy": accuracy(logits, labels), "per_class": per_class, **balance}


def _check_fits(trained: TrainedModel, dataset: Dataset) -> None:
    """Refuse a data set whose classes or image size are not the model's."""
    if dataset.test.multilabel != trained.multilabel:
        kinds = ("one class", "several classes")
        has, knows = kinds[dataset.test.multilabel], kinds[trained.multilabel]
        raise InputError(f"an image of {dataset.name} has {has}, but the model was trained on images with {knows}")
    name, classes, own = dataset.name, dataset.class_names, trained.class_names
    if classes != own:
        k, names = next((k, pair) for k, pair in enumerate(zip_longest(classes, own)) if pair[0] != pair[1])
        has, knows = ("missing" if label is None else repr(label) for label in names)
        raise InputError(
            f"{name} has {len(classes)} classes, but the model was trained on {len(own)}; the first difference is class "
            f"{k} (from 0): {has} in {name}, {knows} in the model"
        )
    if dataset.image_size != trained.model.image_size:
        height, width = trained.model.image_size
        got, wanted = describe_size(dataset.image_size), describe_size((height, width))
        advice = f"; --data.resize {height} resizes them" if height == width else ""
        raise InputError(f"{name} has images of {got}, but the model takes {wanted}{advice}")


def evaluate_images(run: str | Path, **options: Any) -> Iterator[dict[str, Any]]:
    """A finished run's answer on each image that `evaluate_run` uses, as from `predict_each`, with its `label`.

    Where an image may have several classes, the label names them with | between.

    Args:
        options: all those of `evaluate_run`.
    Raises:
        InputError: as `evaluate_run`.
    """
    trained, dataset, _ = _open_run(run, **options)
    test, names = dataset.test, trained.class_names
    for file, label, answer in zip(test.files, test.labels, _answers(trained, test.images), strict=True):
        own = [names[k] for k in np.flatnonzero(label)] if trained.multilabel else [names[label]]
        yield {"file": file, "label": "|".join(own), **answer}


def _answers(trained: TrainedModel, images: np.ndarray | MappedRows) -> Iterator[dict[str, Any]]:
    """The prediction for each image, as `predict_each` gives it."""
    for row in trained.probabilities(images).tolist():
        named = dict(zip(trained.class_names, row, strict=True))
        if trained.multilabel:
            yield {"classes": [name for name in named if named[name] >= 0.5], "probabilities": named}
        else:
            yield {"probabilities": named}


def evaluate_run(
    run: str | Path,
    *,
    source: str | None = None,
    resize: int | None = None,
    device: str = "auto",
    allow_code: bool = False,
) -> RunScores:
    """`evaluate` a finished run on its own test images, or on those of another source.

    Without a test split, all images of another source are used; see `open_to_measure`.

    Args:
        source: of another data set; by default the run's own.
        resize: all images to squares of this many pixels a side; by default as in the run.
        allow_code: agree to run the user-defined code that the model needs.
    Raises:
        InputError: no finished run there, its own data have changed, the data cannot be used, or it has code and
            `allow_code` does not agree.
    """
    trained, dataset, notes = _open_run(run, source, resize, device, allow_code)
    return {**evaluate(trained, dataset), "notes": notes}


def _open_run(
    run: str | Path, source: str | None, resize: int | None, device: str, allow_code: bool
) -> tuple[TrainedModel, Dataset, tuple[str, ...]]:
    """A finished run's model, the data to evaluate it on, and notes on these; arguments as for `evaluate_run`."""
    run = find_run(run)
    if run.is_file():
        raise InputError(f"{run} is only a model, without its data; give its run folder, {run.parent}")
    trained = load_model(run, choose_device(device), allow_code=allow_code)
    if not (file := run / "result.json").exists():
        resume, measure = f"finish it: pocketvit train --resume {quote(str(run))}", "use pocketvit.evaluate in Python"
        raise InputError(
            f"{run} has no result.json, which says what it was trained on; give the whole run folder, or "
            + (resume if (run / "checkpoint").is_dir() else measure)
        )
    result = RunResult.read(file)
    trained_on = result.data_fingerprint
    config = load_config(run / "config.yaml", allow_code=True).data  # only its data section is used
    config = config if resize is None else replace(config, resize=resize)
    cautions = []
    if source is None:
        place = Path(config.source)  # absolute, but for a known name
        if place.is_absolute() and not place.exists():
            raise InputError(
                f"{place}, which {run} was trained on, no longer exists; say where it is now with --data SOURCE"
            )
        dataset = open_dataset(config)
        if dataset.fingerprint != trained_on:
            _check_fits(trained, dataset)  # gives a better message if the classes or the size have changed
            raise InputError(
                f"{config.source} has changed since {run} was trained on it, and its test images may be training images "
                f"now; give --data with a separate test set, or --data {config.source} to use it anyway"
            )
        own = split_dataset(dataset, config).train
    else:
        dataset = open_to_measure(replace(config, source=source, format=None), trained_on)
        own = _training_images(config, trained_on)
        if lasting_source(source) == config.source and dataset.fingerprint != trained_on:
            cautions.append(f"{source} has changed since {run} was trained on it: these may be training images")
    if dataset.test.fingerprint == result.train_fingerprint:
        cautions.append(f"{run} was trained on these very images: on new images its accuracy may be far lower")
    elif own is not None:
        cautions += note_shared("images", dataset.test.digests, own.digests, f"those that {run} was trained on")
    _check_fits(trained, dataset)
    return trained, dataset, (*(f"CAUTION: {line}" for line in cautions), *dataset.notes)


def _training_images(config: DataConfig, fingerprint: str) -> Split | None:
    """The training data of a run; None if the data with this fingerprint are no longer available."""
    with contextlib.suppress(InputError):
        splits = open_splits(config)
        if splits.fingerprint == fingerprint:
            return splits.train
    return None


AT_A_TIME = 256


def predict_each(
    run: str | Path, files: Iterable[str | Path | bytes], *, device: str = "auto", allow_code: bool = False
) -> Iterator[dict[str, Any]]:
    """Classify image files one by one, read as in the run and resized to the model's size.

    Args:
        files: images, or folders, of which every image is classified; bytes are an image's content, called -.
    Returns:
        for each image its `file` and `probabilities`, a class name -> probability mapping. Where an image may have several
        classes, `classes` lists those of at least 50 %. What cannot be read has an `error` instead, an InputError.
    Raises:
        InputError: no trained model there, or it has code and `allow_code` does not agree.
    """
    trained = load_model(run, choose_device(device), allow_code=allow_code)
    yield from answer_each(run, files, trained.model.image_size, partial(_answers, trained), AT_A_TIME)


def answer_each(
    run: str | Path,
    files: Iterable[str | Path | bytes],
    size: tuple[int, int],
    answer: Callable[[np.ndarray], Iterable[dict[str, Any]]],
    at_a_time: int,
) -> Iterator[dict[str, Any]]:
    """The answer on each image file, read as in the run, with its `file`; for what cannot be read an `error`.

    Args:
        files: as for `predict_each`.
        size: to which images are resized, (H, W).
        answer: from uint8 images (B, H, W, C) to an answer on each.
        at_a_time: the most images that it is given.
    """
    config = find_run(run) / "config.yaml"  # absent if the model is a single file
    how = load_config(config, allow_code=True).data if config.exists() else DataConfig()
    sources = _sources(files)
    while some := list(islice(sources, at_a_time)):
        images, errors = [], {}
        for place, (name, source) in enumerate(some):
            try:
                if isinstance(source, InputError):
                    raise source
                images.append(resize(decode(source, name, config=how), size, how))
            except InputError as error:
                errors[place] = {"error": error}
        answers = iter(answer(np.stack(images)) if images else ())
        for place, (name, _) in enumerate(some):
            yield {"file": name, **(errors[place] if place in errors else next(answers))}


def _sources(files: Iterable[str | Path | bytes]) -> Iterator[tuple[str, Path | bytes | InputError]]:
    """Each image's name, and where its content is, with every image of a folder."""
    for file in files:
        if isinstance(file, bytes):
            yield "-", file
        elif not isdir(path := path_of(file)):
            yield str(file), path
        elif images := [each for each in visible_files(path) if is_image(each)]:
            yield from ((str(each), each) for each in images)
        else:
            yield str(file), InputError(f"{file}: a folder without images")
