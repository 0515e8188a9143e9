"""Using a trained model: logits, accuracy, a saved run, files to classify.

Shapes: N images, B batch, C channels, H W pixels, K classes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pocketvit.checks import describe_size
from pocketvit.config import ModelConfig, code_of, load_config
from pocketvit.data import Dataset, Split, open_dataset, open_to_measure
from pocketvit.data.augment import normalise
from pocketvit.data.dataset import MappedRows
from pocketvit.data.pixels import decode, resize, uint8_remedy
from pocketvit.data.sources import lasting_source
from pocketvit.errors import InputError
from pocketvit.files import write_arrays, write_atomically
from pocketvit.model import ViT
from pocketvit.training.device import choose_device
from pocketvit.usercode import Code, keep_copies, resolve

EVAL_BATCH = {"cuda": 2_000, "mps": 500, "cpu": 200}


@torch.inference_mode()
def predict_logits(model: ViT, images: np.ndarray | Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Classify images in fp32, in batches: smaller ones where the GPU has no room for the usual.

    Args:
        model: on its device; left in the mode it was in.
        images: uint8, (N, H, W, C).
        mean: of the training pixels in [0, 1], (C,), on the model's device.
        std: likewise.
    Returns:
        logits, float32, (N, K), on the CPU.
    """
    device = mean.device
    was_training = model.training
    model.eval()
    logits, start, size = [], 0, EVAL_BATCH[device.type]
    while start < len(images):
        batch = images[start : start + size]
        batch = torch.from_numpy(np.ascontiguousarray(batch)) if isinstance(batch, np.ndarray) else batch
        try:
            logits.append(model(normalise(batch.to(device), mean, std)).float().cpu())
            start += len(batch)
        except torch.cuda.OutOfMemoryError:  # training has the GPU's memory; fewer images at a time give the same
            if size == 1:
                raise
            size //= 2
    model.train(was_training)
    return torch.cat(logits)  # (N, K)


def accuracy(logits: Tensor, labels: np.ndarray) -> float:
    """Fraction of rows of logits (N, K) whose largest entry is the label (N,)."""
    return float((logits.argmax(dim=1).numpy() == labels).mean())


@dataclass(frozen=True)
class TrainedModel:
    """A model with what it needs to be used alone."""

    model: ViT
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    """Of the training pixels in [0, 1], a number per channel."""
    std: tuple[float, ...]

    def logits(self, images: np.ndarray | MappedRows) -> Tensor:
        """Classify uint8 images (N, H, W, C), C = 3: logits (N, K) on the CPU; none for no images.

        Raises:
            InputError: anything else, or images of another size than the model's.
        """
        self._check(images)
        if not len(images):
            return torch.empty(0, self.model.num_classes)
        device = next(self.model.parameters()).device
        mean, std = (torch.tensor(value, dtype=torch.float32, device=device) for value in (self.mean, self.std))
        return predict_logits(self.model, images, mean, std)

    def _check(self, images: Any) -> None:
        """Refuse whatever is not images as the model was trained on, and say what would make them so."""
        if not isinstance(images, np.ndarray | MappedRows):
            raise InputError(f"images are of type {type(images).__name__}; give an array, such as np.asarray(images)")
        if images.dtype != np.uint8:
            raise InputError(f"images are {images.dtype}, not uint8; {uint8_remedy(images, 'images')}")
        height, width = self.model.image_size
        if images.ndim != 4 or images.shape[3] != 3:
            wanted = f"(N, {height}, {width}, 3)"
            raise InputError(f"images have shape {images.shape}, not {wanted}; {_advice(images.shape)}")
        if images.shape[1:3] != (height, width):
            got, wanted = describe_size(images.shape[1:3]), describe_size((height, width))
            raise InputError(f"images have {got}, the model was trained on {wanted}: resize them")

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Class probabilities of uint8 images (N, H, W, C): float32 (N, K), rows sum to 1.

        Raises:
            InputError: as `logits`.
        """
        return self.logits(images).softmax(dim=1).numpy()

    def save(self, path: Path) -> None:
        """Write weights and everything else in one safetensors file; the user's own code, if any, into code/ beside it.

        Raises:
            InputError: it cannot be written.
        """
        model = {name: v.copied if isinstance(v, Code) else v for name, v in asdict(self.model.config).items()}
        about = {
            "model": json.dumps(model),
            "image_size": json.dumps(self.model.image_size),
            "class_names": json.dumps(self.class_names),
            "mean": json.dumps(self.mean),
            "std": json.dumps(self.std),
        }
        state = self.model.state_dict().items()
        weights = {name: tensor.to("cpu", copy=True).contiguous() for name, tensor in state}  # tied ones apart
        keep_copies(code_of(self.model.config).values(), path.parent)
        write_atomically(path, save(weights, metadata=about))


def _advice(shape: tuple[int, ...]) -> str:
    """How to make RGB images (N, H, W, 3) of an array of another shape."""
    match shape:
        case (_, _, 3):
            return "give a single image as images[None]"
        case (_, _, _):
            return "give grey images as np.stack([images] * 3, axis=-1)"
        case (_, _, _, 1):
            return "give grey images as np.repeat(images, 3, axis=3)"
        case (_, _, _, 4):
            return "images[..., :3] leaves transparency out"
        case (_, 3, _, _):
            return "put the channels last: images.transpose(0, 2, 3, 1)"
    return "give RGB images, one after another"


def load_model(run: str | Path, device: str | torch.device = "cpu", *, allow_code: bool = False) -> TrainedModel:
    """Load a trained model from its run folder, or from its model.safetensors alone.

    Args:
        run: the folder or the file. A model with code of the user's own needs the folder code/ beside the file.
        device: to load it to.
        allow_code: agree to run that code.
    Raises:
        InputError: there is none, it is not one of ours, or it has code without consent.
    """
    path = Path(run)
    path = path / "model.safetensors" if path.is_dir() else path
    if not path.exists():
        if (Path(run) / "config.yaml").exists():
            raise InputError(f"the run in {run} is not finished; go on with: pocketvit train --resume {run}")
        raise InputError(f"no trained model at {path}; give a finished run folder or a model.safetensors")
    try:
        with safe_open(path, framework="pt") as file:
            about = {key: json.loads(value) for key, value in file.metadata().items()}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        chosen = {f"model.{name}": value for name, value in about["model"].items()}
        chosen = resolve(chosen, folder=path.parent, where=str(path), allow_code=allow_code, inside=True)
        model = ViT(
            ModelConfig(**{name.removeprefix("model."): value for name, value in chosen.items()}),
            image_size=tuple(about["image_size"]),
            num_classes=len(about["class_names"]),
        )
        model.load_state_dict(weights)
    except InputError:
        raise
    except (SafetensorError, OSError, KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        raise InputError(f"{path} is not a model that PocketViT saved: {str(error).splitlines()[0]}") from error
    names, mean, std = (tuple(about[key]) for key in ("class_names", "mean", "std"))
    return TrainedModel(model.to(device).eval(), names, mean, std)


def evaluate(trained: TrainedModel, dataset: Dataset) -> dict[str, Any]:
    """Accuracy on a data set's test images, in all and per class.

    Raises:
        InputError: the classes or the image size are not the model's.
    """
    _check_fits(trained, dataset)
    logits, labels = trained.logits(dataset.test.images), dataset.test.labels
    hits = logits.argmax(dim=1).numpy() == labels
    per_class = {name: float(hits[labels == k].mean()) for k, name in enumerate(trained.class_names) if k in labels}
    return {"images": len(labels), "accuracy": float(hits.mean()), "per_class": per_class}


def _check_fits(trained: TrainedModel, dataset: Dataset) -> None:
    """Refuse a data set whose classes or image size are not the model's."""
    if dataset.class_names != trained.class_names:
        raise InputError(_class_difference(dataset.name, dataset.class_names, trained.class_names))
    if dataset.image_size != trained.model.image_size:
        height, width = trained.model.image_size
        got, wanted = describe_size(dataset.image_size), describe_size((height, width))
        advice = f"; --data.resize {height} makes them so" if height == width else ""
        raise InputError(f"{dataset.name} has images of {got}, the model takes {wanted}{advice}")


def _class_difference(name: str, classes: Sequence[str], trained: Sequence[str]) -> str:
    """How a set's classes differ from those of a model: in number, and where first."""
    pairs = enumerate(zip_longest(classes, trained))
    k, names = next((k, pair) for k, pair in pairs if pair[0] != pair[1])
    has, knows = ("missing" if label is None else repr(label) for label in names)
    return (
        f"{name} has {len(classes)} classes, the model was trained on {len(trained)}; the first that differs is class "
        f"{k} (from 0): {has} in {name}, {knows} in the model"
    )


def evaluate_run(
    run: str | Path,
    *,
    source: str | None = None,
    resize: int | None = None,
    device: str = "auto",
    allow_code: bool = False,
) -> dict[str, Any]:
    """`evaluate` a finished run on its own test images, or on those of another source.

    All images of another source without a test split are measured; see `open_to_measure`.

    Args:
        run: the run folder.
        source: of other data; the run's own if None.
        resize: bring all images to this many pixels a side; as the run did if None.
        device: to compute on.
        allow_code: agree to run the code of the user's own that the model needs.
    Returns:
        what `evaluate` does, and `notes`: lines to say aloud on the data; one that begins with CAUTION says that the images
        measured are, or may be, training images.
    Raises:
        InputError: no finished run there, its own data have changed, the data cannot be used, or it has code and
            `allow_code` does not agree.
    """
    if Path(run).is_file():
        raise InputError(f"{run} is a model alone, which names no data; give its run folder, {Path(run).parent}")
    trained = load_model(run, choose_device(device), allow_code=allow_code)
    result = _result_of(Path(run))
    trained_on = result["data_fingerprint"]
    config = load_config(Path(run) / "config.yaml", allow_code=True).data  # nothing but the data is taken from it
    config = config if resize is None else replace(config, resize=resize)
    cautions = []
    if source is None:
        dataset = open_dataset(config)
        if dataset.fingerprint != trained_on:
            _check_fits(trained, dataset)  # says more where the classes or the size have changed
            raise InputError(
                f"{config.source} has changed since {run} was trained on it, and its test images may be training images "
                f"now; give --data with a separate test set, or --data {config.source} to measure on it anyway"
            )
    else:
        dataset = open_to_measure(replace(config, source=source, format=None), trained_on)
        if lasting_source(source) == config.source and dataset.fingerprint != trained_on:
            cautions.append(f"{source} has changed since {run} was trained on it: these may be training images")
    if dataset.test.fingerprint == result.get("train_fingerprint"):  # which older results lack
        cautions.append(f"{run} was trained on these very images: on new ones its accuracy may be far lower")
    return evaluate(trained, dataset) | {"notes": (*(f"CAUTION: {line}" for line in cautions), *dataset.notes)}


def _result_of(run: Path) -> Mapping[str, Any]:
    """The result of a finished run, which says what it was trained on.

    Raises:
        InputError: there is no result.json, or it is damaged.
    """
    file = run / "result.json"
    if not file.exists():
        raise InputError(
            f"{run} has no result.json, which says what it was trained on; copy the whole folder of the run, or finish "
            f"it: pocketvit train --resume {run}"
        )
    from pocketvit.report.runfolder import checked_result  # loads a drawing library

    return checked_result(file)


def predict_files(
    run: str | Path, files: Sequence[str | Path], *, device: str = "auto", allow_code: bool = False
) -> list[dict[str, Any]]:
    """Classify image files, resized to the model's size.

    Returns:
        for each file its name and `probabilities`, a class name -> probability mapping.
    Raises:
        InputError: no trained model there, a file is missing or no image, or the model has code and `allow_code` does
            not agree.
    """
    trained = load_model(run, choose_device(device), allow_code=allow_code)
    images = np.stack([resize(decode(Path(file), str(file)), trained.model.image_size) for file in files])
    return [
        {"file": str(file), "probabilities": dict(zip(trained.class_names, map(float, row), strict=True))}
        for file, row in zip(files, trained.probabilities(images), strict=True)
    ]


def save_predictions(path: Path, logits: Tensor, split: Split, class_names: Sequence[str]) -> None:
    """Write test logits (N, K), labels (N,), indices (N,) into the test set, and class names."""
    write_arrays(
        path,
        logits=logits.numpy(),
        labels=split.labels,
        indices=np.arange(len(split.labels)),
        class_names=np.array(class_names),
    )
