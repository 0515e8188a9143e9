"""The result of a finished run, `result.json`, and finding results in folders."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from pocketvit.errors import InputError
from pocketvit.files import read_json, write_json


def is_number(value: Any) -> bool:
    """Whether a value from JSON is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**63


def _all(kind: type, values: Iterable[Any]) -> bool:
    return all(isinstance(value, kind) for value in values)


# A type, what it is called in a message, and how to tell it.
Text = Annotated[str, "text", lambda value: isinstance(value, str)]
Texts = Annotated[tuple[str, ...], "a list of texts", lambda value: isinstance(value, list) and _all(str, value)]
Named = Annotated[
    Mapping[str, str], "text by name", lambda value: isinstance(value, dict) and _all(str, value.values())
]
Whole = Annotated[int, "a whole number", lambda value: _is_whole(value, -(2**63))]
Natural = Annotated[int, "a whole number from 0", lambda value: _is_whole(value, 0)]
Number = Annotated[float, "a finite number", is_number]
Positive = Annotated[float, "a number above 0", lambda value: is_number(value) and value > 0]
Fraction = Annotated[float, "a number from 0 to 1", lambda value: is_number(value) and 0 <= value <= 1]
Scores = Annotated[
    Mapping[str, float],
    "numbers from 0 to 1 by name",
    lambda value: isinstance(value, dict) and all(is_number(number) and 0 <= number <= 1 for number in value.values()),
]
Split = Annotated[Literal["test", "val"], "test or val", lambda value: value in ("test", "val")]


@dataclass(frozen=True)
class Evaluation:
    """One evaluation during training."""

    images: Whole  # training images seen
    train_s: Number
    accuracy: Fraction
    split: Split
    map: Fraction | None = None
    """Mean average precision; only where an image may have several classes, as in `RunResult`."""

    @property
    def score(self) -> float:
        """What runs are compared by: mAP where an image may have several classes, else accuracy."""
        return self.accuracy if self.map is None else self.map


Evaluations = Annotated[
    tuple[Evaluation, ...], "a list of objects", lambda value: isinstance(value, list) and _all(dict, value)
]


WRITTEN = ("train_fingerprint", "cautions", "num_processes")
"""Fields that are written even at their default, which is for older results; the others are left out then."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """The fields of `result.json`, in its order."""

    test_accuracy: Fraction
    """After the last step. Where an image may have several classes, the share of images with exactly their classes."""
    val_accuracy: Fraction | None
    """After the last step; None if no images were held out."""
    best_test_accuracy: Fraction | None
    """The best test accuracy over the evaluations; biased upward. None without evaluations on the test images."""
    images_per_s: Positive
    """Training with augmentation, without compiling and evaluation."""
    curve: Evaluations
    """Every evaluation during training."""
    train_fingerprint: Text | None = None
    """Of the training images; absent in older results."""
    cautions: Texts = ()
    """Problems of the data; absent in older results."""
    balanced_accuracy: Fraction | None = None
    """This and the next two: see `pocketvit.runs.balance`; written only for uneven classes."""
    majority_share: Fraction | None = None
    classes_at_zero: Texts = ()
    test_map: Fraction | None = None
    """Mean over the classes of their average precision after the last step; this and the next two are written only where an
    image may have several classes."""
    val_map: Fraction | None = None
    class_precisions: Scores | None = None
    """Average precision of each class that has test images, by name."""
    test_accuracy_tta: Fraction | None = None
    """With `train.flip_average`: by the mean of the logits of each image and its mirror image; this and the next."""
    val_accuracy_tta: Fraction | None = None
    best_pass: Whole | None = None
    """The pass whose weights are kept; only written with `train.patience`, and all scores are those of these weights."""
    recipe: Text
    seed: Whole
    config_hash: Text
    data_fingerprint: Text
    num_params: Whole
    num_processes: Whole | None = None
    """Absent in older results."""
    num_gpus: Whole
    """0 on a CPU."""
    train_s: Positive
    images_seen: Whole
    images_total: Natural | None = None
    """Together with those of the models that it was started and learned from; only then written, if they are known."""
    peak_memory_gib: Number | None
    """None if the device does not report it."""
    device: Text
    kernels: Text | None = None
    """Kernels of the blocks: persistent, fused or reference; absent in older results."""
    model_digest: Text | None = None
    """Of model.safetensors, as `pocketvit.config.weights` counts it; absent in older results."""
    versions: Named
    commit: Text | None
    command: Text
    total_s: Positive
    """From the start of the program to the result; of a resumed run, the sum over its parts, each up to the checkpoint that
    the next one began from. Older versions counted only the last part."""
    file: Path = field(compare=False)
    """The path of the file; not part of it."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Other content of the file."""

    def __getitem__(self, name: str) -> Any:
        """A field by its name in the file, as before there were named fields."""
        if name not in {item.name for item in fields(self)}:
            raise KeyError(name)
        return getattr(self, name)

    @property
    def key(self) -> str:
        """The key of a study's cell: config hash and seed."""
        return f"{self.config_hash}-s{self.seed}"

    @property
    def beside_s(self) -> float | None:
        """Seconds besides training: import, compilation, evaluation and report; None where only the last part counted."""
        return self.total_s - self.train_s if self.total_s > self.train_s else None

    @property
    def kernels_used(self) -> str:
        """The kind of kernels that ran; where an older result does not name it, the only one that there was."""
        return self.kernels or ("fused" if self.num_gpus else "reference")

    @property
    def run_folder(self) -> Path:
        """The folder of the file: the run folder, for a result.json."""
        return self.file.parent

    def write(self) -> None:
        """Write the file atomically.

        Raises:
            InputError: it cannot be written.
        """
        content = asdict(self)
        del content["file"], content["extra"]
        content["curve"] = [{k: v for k, v in point.items() if (k, v) != ("map", None)} for point in content["curve"]]
        usual = {item.name: item.default for item in fields(self) if item.name not in WRITTEN}
        write_json(self.file, {k: v for k, v in content.items() if k not in usual or v != usual[k]} | self.extra)

    @classmethod
    def read(cls, file: Path) -> "RunResult":
        """Read and check a file.

        Args:
            file: a result.json.
        Raises:
            InputError: it cannot be read, lacks a field, or a field has an invalid value.
        """
        content = read_json(file)
        known, where = take_fields(str(file), cls, content), f"{file}: a point of the curve"
        known["curve"] = tuple(Evaluation(**take_fields(where, Evaluation, point)) for point in known["curve"])
        known |= {name: tuple(known.get(name, ())) for name in ("cautions", "classes_at_zero")}
        return cls(**known, file=file, extra=content)


def take_fields(where: str, kind: type, content: dict[str, Any]) -> dict[str, Any]:
    """Take the fields of a dataclass out of `content`; refuse values of other types."""
    named = [item for item in fields(kind) if item.name not in ("file", "extra")]
    absent = [item.name for item in named if item.default is MISSING and item.name not in content]
    if absent:
        raise InputError(f"{where} lacks {', '.join(absent)}: was it written by `pocketvit train`?")
    known = {item.name: content.pop(item.name) for item in named if item.name in content}
    hints = get_type_hints(kind, include_extras=True)
    for name, value in known.items():
        options = [hints[name]] if get_origin(hints[name]) is Annotated else get_args(hints[name])
        _, words, fits = get_args(options[0])
        if not (fits(value) or (value is None and len(options) > 1)):
            raise InputError(f"{where}: {name} is {value!r:.80}; expected {words}")
    return known


def result_at(file: Path) -> RunResult | None:
    """A run's result; None if the file is absent, incomplete, or something else."""
    try:
        return RunResult.read(file)
    except InputError:
        return None


def find_results(folders: Iterable[Path], *, one_gpu: bool = False) -> dict[str, RunResult]:
    """All results in some folders, at any depth, by key.

    Of several with the same key, the first folder counts, in it the run on the fewest GPUs, then the first by path.

    Args:
        one_gpu: leave out runs on several GPUs, whose times cannot be compared with those of one.
    """
    found: dict[str, RunResult] = {}
    for folder in folders:
        read = [result for file in sorted(folder.rglob("*.json")) if (result := result_at(file))]
        for result in sorted(read, key=lambda result: max(1, result.num_gpus)):
            if not (one_gpu and result.num_gpus > 1):
                found.setdefault(result.key, result)
    return found
