"""Evaluation where memory is short, and what a trained model takes."""

import json
import os
import re
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pocketvit.config import ModelConfig
from pocketvit.errors import InputError
from pocketvit.inference.logits import EVAL_BATCH, predict_logits
from pocketvit.inference.trained_model import TrainedModel, load_model
from pocketvit.model import ViT


class Narrow(torch.nn.Module):
    """Says the mean of each channel; has room for so many images."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > self.room:
            raise torch.cuda.OutOfMemoryError
        return images.mean(dim=(2, 3))


def logits(room: int) -> torch.Tensor:
    images = np.random.default_rng(0).integers(0, 256, (23, 4, 4, 3), dtype=np.uint8)
    return predict_logits(Narrow(room), images, torch.zeros(3), torch.ones(3))


def test_fewer_images_at_a_time_where_there_is_no_room(monkeypatch):
    monkeypatch.setitem(EVAL_BATCH, "cpu", 10)
    assert torch.equal(logits(room=3), logits(room=100))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        logits(room=0)


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    """A model for 8 x 8 images in two classes, as it starts."""
    config = ModelConfig(width=8, depth=1, num_heads=2)
    return TrainedModel(ViT(config, image_size=(8, 8), num_classes=2), ("a", "b"), (0.5,) * 3, (0.25,) * 3)


def shaped(*shape: int, dtype: str = "uint8") -> np.ndarray:
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (
            shaped(2, 8, 8, 3, dtype="float32"),
            "are float32, not uint8; values run from 0 to 0: use (images * 255).round().astype('uint8')",
        ),
        (shaped(2, 8, 8, 3, dtype="uint16"), "use (images / 257).round().astype('uint8')"),
        (shaped(2, 8, 8, 3, dtype="bool"), "are bool, not uint8; values run from 0 to 0: use (images * 255).round()"),
        (shaped(2, 8, 8, 3, dtype="int64"), "use images.round().astype('uint8')"),
        (shaped(8, 8, 3), "have shape (8, 8, 3), not (N, 8, 8, 3); give a single image as images[None]"),
        (
            shaped(2, 8, 8),
            "have shape (2, 8, 8), not (N, 8, 8, 3); give gray images as np.stack([images] * 3, axis=-1)",
        ),
        (shaped(2, 8, 8, 1), "give gray images as np.repeat(images, 3, axis=3)"),
        (shaped(2, 8, 8, 4), "images[..., :3] drops transparency"),
        (shaped(2, 3, 8, 8), "put the channels last: images.transpose(0, 2, 3, 1)"),
        (shaped(64), "have shape (64,), not (N, 8, 8, 3)"),
        (
            shaped(2, 9, 8, 3),
            "images have 8 × 9 pixels (width × height), but the model was trained on 8 × 8 pixels: resize them",
        ),
        ([shaped(8, 8, 3)], "are of type list; give an array, such as np.asarray(images)"),
        (Image.new("RGB", (8, 8)), "are of type Image; give an array"),
        (torch.zeros(2, 8, 8, 3, dtype=torch.uint8), "are of type Tensor; give an array"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_what_is_not_images_as_the_model_knows_them_is_refused_with_the_remedy(trained, images, words):
    for classify in (trained.logits, trained.probabilities):
        with pytest.raises(InputError) as refused:
            classify(images)
        assert words in str(refused.value) and "\n" not in str(refused.value)


def test_a_model_that_may_not_be_read_is_not_taken_for_a_broken_one(trained, tmp_path, monkeypatch):
    trained.save(tmp_path / "model.safetensors")
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(InputError, match="model.safetensors cannot be read; ask its owner"):
        load_model(tmp_path)


def test_pictures_of_pillow_are_taken_without_a_warning(trained):
    picture = np.asarray(Image.fromarray(shaped(8, 8, 3)))
    assert not picture.flags.writeable
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        trained.probabilities(picture[None])
    assert not said


def test_no_images_have_no_logits(trained):
    none = shaped(0, 8, 8, 3)
    assert trained.logits(none).shape == trained.probabilities(none).shape == (0, 2)


SAVE = """
import sys, torch
from pathlib import Path
from pocketvit.config import ModelConfig
from pocketvit.inference.trained_model import TrainedModel
from pocketvit.model import ViT

torch.manual_seed(0)
model = ViT(ModelConfig(width=8, depth=1, num_heads=2), image_size=(8, 8), num_classes=2)
for name in sys.argv[1:]:
    TrainedModel(model, ("ä", "b"), (0.5,) * 3, (0.25,) * 3).save(Path(name))
"""


def test_equal_models_have_equal_files(tmp_path):
    """In one process and in another: a file with five keys would agree by chance in one of 120 tries."""
    for seed in "12":
        names = [tmp_path / f"{seed}-{i}.safetensors" for i in range(3)]
        environment = os.environ | {"PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", SAVE, *names], check=True, env=environment)
    files = {path.read_bytes() for path in tmp_path.glob("*.safetensors")}
    assert len(list(tmp_path.glob("*.safetensors"))) == 6 and len(files) == 1
    assert load_model(tmp_path / "1-0.safetensors").class_names == ("ä", "b")


def test_a_class_name_that_stands_twice_is_refused(trained, tmp_path):
    replace(trained, class_names=("a", "a")).save(tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="model.safetensors: two of its classes have the same name, so their"):
        load_model(tmp_path)


def test_a_file_of_older_versions_loads(trained, tmp_path):
    """They had a key of metadata for each part."""
    new, old = tmp_path / "new.safetensors", tmp_path / "old.safetensors"
    trained.save(new)
    with safe_open(new, framework="pt") as file:
        about = json.loads(file.metadata()["pocketvit"])
    assert set(about) == {"model", "image_size", "class_names", "mean", "std"}
    save_file(load_file(new), old, metadata={key: json.dumps(value) for key, value in about.items()})
    ours, theirs = load_model(new), load_model(old)
    assert (ours.class_names, ours.mean, ours.std) == (theirs.class_names, theirs.mean, theirs.std) == (
        trained.class_names, trained.mean, trained.std,
    )  # fmt: skip
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    assert torch.equal(ours.logits(images), theirs.logits(images))
    assert theirs.model.config == trained.model.config


def test_maps_are_shown_in_a_line(made, images):
    maps = made("classification").attention_maps(images[:3])
    assert re.fullmatch(r"AttentionMaps\(classes=tensor\(\[.+\]\), grid=\(\d+, \d+\), num_cls=1\)", repr(maps))
