"""Model files whose metadata claim anything."""

import json
import math
import os

import pytest
import torch
from bounded import refusal
from predictions import predict_files
from safetensors.torch import save_file

from pocketvit.config import ModelConfig
from pocketvit.config.weights import Weights
from pocketvit.errors import InputError
from pocketvit.inference.trained_model import TrainedModel, load_model
from pocketvit.model import ViT
from pocketvit.training.start import start_from

IMPORTS = "import torch; from pocketvit.inference.trained_model import load_model"
LOAD = """
for path in sys.argv[1:]:
    try:
        load_model(path)
    except InputError as error:
        print(error)
"""


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """What a model's file says, and its weights."""
    from safetensors import safe_open
    from safetensors.torch import load_file

    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    model = ViT(
        ModelConfig(width=8, depth=1, num_heads=2, patch_size=1, positions="rope"), image_size=(8, 8), num_classes=2
    )
    TrainedModel(model, ("a", "b"), (0.5,) * 3, (0.25,) * 3).save(path)
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["pocketvit"]), load_file(path)


def write(path, about, weights):
    save_file(weights, path, metadata={"pocketvit": about if isinstance(about, str) else json.dumps(about)})
    return path


def test_what_a_file_claims_takes_neither_time_nor_memory(tmp_path, parts):
    """Not a model larger than its weights, nor a table of positions for an image of any size, nor a pipe."""
    about, weights = parts
    fields = [
        {"depth": 1_000_000},
        {"depth": 14},
        {"width": 1_000_000},
        {"num_registers": 1_000_000},
        {"mlp_ratio": 1e5},
    ]
    claims = [{"model": about["model"] | field} for field in fields] + [{"image_size": [4096, 4096]}]
    files = [write(tmp_path / f"{i}.safetensors", about | claim, weights) for i, claim in enumerate(claims)]
    os.mkfifo(tmp_path / "pipe")
    said = refusal(LOAD, *files, tmp_path / "pipe", "/dev/zero", imports=IMPORTS, mib=200).splitlines()
    assert said == [
        *(f"{file}: its weights do not fit the model that it describes; copy it again" for file in files),
        f"{tmp_path}/pipe is not a regular file; give a finished run folder or a model.safetensors",
        "/dev/zero is not a regular file; give a finished run folder or a model.safetensors",
    ]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"mean": [0.5, math.nan, 0.5]}, "mean is .*; expected three finite numbers"),
        ({"mean": [0.5, 0.5]}, "mean is .*; expected three finite numbers"),
        ({"mean": None}, "mean is None; expected three finite numbers"),
        ({"std": [0.25, 0, 0.25]}, "std is .*; expected three numbers above 0"),
        ({"std": [0.25, True, "x"]}, "std is .*; expected three numbers above 0"),
        ({"std": [0.25, math.inf, 1]}, "std is .*; expected three numbers above 0"),
        ({"image_size": [8]}, "image_size is .*; expected height and width"),
        ({"image_size": [8.0, 8.0]}, "image_size is .*; expected height and width"),
        ({"image_size": [10**9, 10**9]}, "image_size is .*; expected height and width"),
        ({"class_names": "ab"}, "class_names is 'ab'; expected a name for each class"),
        ({"class_names": [1, 2]}, "class_names is .*; expected a name for each class"),
        ({"class_names": []}, "class_names is .*; expected a name for each class"),
        ({"model": [1]}, "model is .*; expected the model's fields"),
        ({"model": {"width": None}}, "model.width=None"),
        ({"model": {"block_repeats": 1_000_000}}, r"model.block_repeats=1000000: must be in \[1, 64\]"),
        ({"model": {"no_such": 1}}, "is not a model that PocketViT saved"),
    ],
    ids=str,
)
def test_what_a_file_says_is_checked(tmp_path, parts, change, says):
    about, weights = parts
    with pytest.raises(InputError, match=says) as refused:
        load_model(write(tmp_path / "x.safetensors", about | change, weights))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "about",
    ["[" * 100_000, "[]", "1", "null", '{"model": ' + '{"a": ' * 900 + "1" + "}" * 900 + "}"],
    ids=lambda a: a[:9],
)
def test_deep_and_odd_metadata_are_refused_in_one_line(tmp_path, parts, about):
    with pytest.raises(InputError) as refused:
        load_model(write(tmp_path / "x.safetensors", about, parts[1]))
    assert "\n" not in str(refused.value) and "x.safetensors" in str(refused.value)


@pytest.mark.parametrize("table", [torch.zeros(()), torch.zeros(65, 8), torch.zeros(1, 65, 8, dtype=torch.int64)])
def test_a_table_of_positions_that_is_none_starts_no_run(tmp_path, parts, table):
    about, weights = parts
    write(tmp_path / "x.safetensors", about, weights | {"tokens.positions": table})
    with pytest.raises(InputError, match="tokens.positions is torch.*; expected torch.float32 with three axes"):
        start_from(
            ViT(ModelConfig(width=8, depth=1, num_heads=2)), ("a", "b"), Weights.find(tmp_path / "x.safetensors")
        )


def test_no_image_has_a_name_with_a_zero_byte(tmp_path, parts):
    path = write(tmp_path / "x.safetensors", *parts)
    with pytest.raises(InputError, match="cannot be read: a name with a zero byte"):
        predict_files(path, ["a\0b"])


def test_weights_of_another_shape_are_refused(tmp_path, parts):
    about, weights = parts
    weights = weights | {"head.weight": torch.zeros(3, 8)}
    with pytest.raises(InputError, match="its weights do not fit the model"):
        load_model(write(tmp_path / "x.safetensors", about, weights))
