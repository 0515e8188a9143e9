"""A trained model's run folder, made without training."""

from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_results import synthetic_result

from pocketvit.config import override, save_config
from pocketvit.config.weights import Weights
from pocketvit.files import write_arrays
from pocketvit.inference.trained_model import TrainedModel
from pocketvit.model import create_model
from pocketvit.recipes import recipe

DIGITS = tuple(map(str, range(10)))


def random_model(objective: str = "classification", **fields) -> TrainedModel:
    """A small model of digits, whose every part matters to the logits."""
    sizes = {"width": 32, "depth": 2, "num_heads": 4, "image_size": 8}
    model = create_model("digits", **(sizes | fields)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return TrainedModel(model, DIGITS, (0.3, 0.4, 0.5), (0.2, 0.25, 0.3), objective=objective)


@pytest.fixture(scope="session")
def made():
    """Makes a random model of other fields than the recipe's; see `random_model`."""
    return random_model


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    """The folder of a finished run on the digits, with the files that say what the model is."""
    folder = tmp_path_factory.mktemp("runs") / "digits-007"
    folder.mkdir()
    trained = random_model()
    trained.save(folder / "model.safetensors")
    fields = {"model.width": 32, "model.depth": 2, "out": folder, "data.cache_dir": folder}
    save_config(override(recipe("digits"), fields), folder / "config.yaml")
    write_arrays(folder / "predictions.npz", labels=np.zeros(360, int))
    result = synthetic_result(
        test_accuracy=0.9642, images_seen=4_224, train_s=3.25, device="a CPU (1 thread)", config_hash="0123456789ab",
        model_digest=Weights.find(folder).digest, num_params=trained.model.num_params,
    )  # fmt: skip
    (folder / "result.json").write_text("")
    object.__setattr__(result, "file", folder / "result.json")
    result.write()
    return folder


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """100 images of noise, uint8, (100, 8, 8, 3)."""
    return np.random.default_rng(0).integers(0, 256, (100, 8, 8, 3), dtype=np.uint8)
