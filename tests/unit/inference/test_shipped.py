"""Models that come with the package, by name; here from a registry that the tests make."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import pocketvit
from pocketvit.cli import dispatch
from pocketvit.config import load_config, override, save_config, shipped
from pocketvit.config.shipped import SHIPPED, find_run, shipped_names
from pocketvit.config.weights import Weights
from pocketvit.errors import InputError
from pocketvit.inference.evaluate import evaluate_run
from pocketvit.model import create_model
from pocketvit.runs.result import RunResult
from pocketvit.training.start import start_from


@pytest.fixture(scope="module")
def run(run_folder, tmp_path_factory):
    """The run of a model of digits, and of these digits."""
    data = pocketvit.load_dataset("digits")
    folder = tmp_path_factory.mktemp("finished") / "digits-007"
    folder.mkdir()
    for file in run_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = load_config(folder / "config.yaml")
    save_config(override(config, {"data.cache_dir": None}), folder / "config.yaml")
    content = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(content | {"data_fingerprint": data.fingerprint}))
    return folder


@pytest.fixture(scope="module")
def registry(run, tmp_path_factory):
    """A folder with one model, `digits`, made by the script."""
    from benchmarks.ship import ship

    folder = tmp_path_factory.mktemp("shipped")
    ship(run, "digits", folder)
    return folder


@pytest.fixture
def installed(registry, monkeypatch, tmp_path):
    """As if the models had come with the package."""
    monkeypatch.setattr(shipped, "SHIPPED", registry)
    monkeypatch.chdir(tmp_path)
    return registry


def test_a_folder_has_bf16_weights_and_the_accuracy_of_these(run, registry):
    folder = registry / "digits"
    assert {file.name for file in folder.iterdir()} == {"model.safetensors", "config.yaml", "result.json"}
    before, after = (pocketvit.load_model(path).model.state_dict() for path in (run, folder))
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor.bfloat16().float()), name
    assert (folder / "model.safetensors").stat().st_size < 0.6 * (run / "model.safetensors").stat().st_size
    result = RunResult.read(folder / "result.json")
    digits = pocketvit.load_dataset("digits")
    assert result.test_accuracy == pocketvit.evaluate(pocketvit.load_model(folder), digits)["accuracy"]
    assert result.extra == {"test_accuracy_float32": 0.9642, "test_images": 360}
    assert str(run.parent) not in (folder / "config.yaml").read_text() + (folder / "result.json").read_text()
    assert evaluate_run(folder)["accuracy"] == result.test_accuracy


def test_data_that_have_changed_ship_nothing(run, tmp_path):
    from benchmarks.ship import ship

    changed = tmp_path / "run"
    changed.mkdir()
    for file in run.iterdir():
        (changed / file.name).write_bytes(file.read_bytes())
    content = json.loads((run / "result.json").read_text())
    (changed / "result.json").write_text(json.dumps(content | {"data_fingerprint": "0" * 16}))
    with pytest.raises(InputError, match="has changed since"):
        ship(changed, "digits", tmp_path / "registry")
    assert not (tmp_path / "registry").exists()


def test_the_name_stands_for_the_model_unless_a_run_has_it(installed, run, tmp_path):
    assert find_run("digits") == installed / "digits"
    (tmp_path / "digits").mkdir()
    assert find_run("digits") == installed / "digits", "a folder of images is no run"
    (tmp_path / "digits" / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes())
    assert find_run("digits") == tmp_path.joinpath("digits").relative_to(tmp_path)


def test_the_commands_take_the_name(installed, tmp_path, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    assert dispatch(["predict", "digits", "image.png", "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert len(answer["probabilities"]) == 10
    assert dispatch(["predict", "image.png", "--run", "digits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [answer]
    assert dispatch(["explain", "digits", "image.png", "--out", "explained"]) == 0
    assert dispatch(["export", "digits", "--format", "safetensors", "--out", "exported"]) == 0
    assert "on 360 test images of `digits`" in (tmp_path / "exported" / "README.md").read_text()
    assert pocketvit.load_model("digits").class_names == pocketvit.load_model("exported").class_names


def test_a_run_starts_from_the_name(installed):
    """In bf16 as it is shipped."""
    weights = Weights.find("digits")
    model = create_model("digits", width=32, depth=2, num_heads=4)
    start = start_from(model, tuple(map(str, range(10))), weights)
    wanted = pocketvit.load_model("digits").model.state_dict()
    assert start.taken == wanted.keys()
    assert start.notes[-1].endswith("tensors from digits"), "not from a path that another machine does not have"
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in model.state_dict().items())
    assert Weights.find("digits", installed / "digits") == weights, "from any folder"


def test_an_unknown_name_lists_what_there_is(installed):
    with pytest.raises(InputError, match="no trained model at cifar10; .* comes with PocketViT: digits$"):
        pocketvit.load_model("cifar10")


def test_what_comes_with_the_package_is_whole_and_small(registry):
    """Every model of this checkout, of which there may be none yet, and those made here."""
    folders = [file.parent for place in (registry, SHIPPED) for file in place.glob("*/model.safetensors")]
    assert folders
    for folder in folders:
        assert pocketvit.load_model(folder).class_names
        assert RunResult.read(folder / "result.json").extra["test_images"] > 0
        assert load_config(folder / "config.yaml").out is None
    assert sum(file.stat().st_size for file in SHIPPED.rglob("*") if file.is_file()) < 8e6


def test_without_any_the_message_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path / "none")
    assert shipped_names() == []
    with pytest.raises(InputError, match="comes with PocketViT: none in this version$"):
        pocketvit.load_model("cifar10")
