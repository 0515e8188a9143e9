"""Where a trained model comes from: what its run's folder says of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pocketvit import __version__
from pocketvit.config import DataConfig, RunConfig, load_config, override
from pocketvit.config.weights import Weights
from pocketvit.data.pixels import one_line
from pocketvit.errors import InputError
from pocketvit.files import read_arrays
from pocketvit.inference.trained_model import TrainedModel
from pocketvit.runs.result import RunResult


@dataclass(frozen=True)
class Origin:
    """The run of a trained model; of a file alone nothing is known."""

    name: str
    config: RunConfig | None = None
    result: RunResult | None = None
    """None also if it belongs to other weights."""
    test_images: int | None = None

    @classmethod
    def of(cls, trained: TrainedModel) -> Self:
        """What the folder of its file says.

        Raises:
            InputError: the configuration or the result is damaged.
        """
        if trained.file is None:
            return cls("model")
        folder = trained.file.parent
        name = folder.resolve().name if trained.file.name == "model.safetensors" else trained.file.stem
        if not (folder / "config.yaml").is_file() or not (folder / "result.json").is_file():
            return cls(name)
        config = load_config(folder / "config.yaml", allow_code=True)  # it is only named
        result = RunResult.read(folder / "result.json")
        if result.model_digest not in (None, Weights.find(trained.file).digest):
            return cls(name, config)
        tested = _tested(folder / "predictions.npz")
        return cls(name, config, result, result.extra.get("test_images") if tested is None else tested)

    @property
    def data(self) -> DataConfig:
        """How the images of the run were read."""
        return DataConfig() if self.config is None else self.config.data

    def about(self, trained: TrainedModel) -> dict[str, Any]:
        """What a file of another format says of the model beside its weights."""
        return {
            "class_names": list(trained.class_names),
            "image_size": list(trained.model.image_size),
            "mean": list(trained.mean),
            "std": list(trained.std),
            "config_hash": None if self.result is None else self.result.config_hash,
            "pocketvit": __version__,
        }


def _tested(predictions: Path) -> int | None:
    """The number of test images; None without the file."""
    if not predictions.is_file():
        return None
    try:
        return len(read_arrays(predictions, lambda _: ("labels",))["labels"])
    except Exception as error:  # whatever NumPy says of a damaged file
        raise InputError(f"{predictions} cannot be read ({one_line(error)}); it is damaged") from error


def shareable(config: RunConfig) -> RunConfig:
    """A configuration without the paths of this machine: data are named by their last part."""
    source = Path(config.data.source)
    name = source.name if source.is_absolute() else config.data.source
    return override(config, {"out": None, "data.source": name, "data.cache_dir": None})
