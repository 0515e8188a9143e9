"""The recipe `finetune`: it takes the trained model's fields, and adapts to the images."""

import pytest
from test_run import Heard

from pocketvit.cli.train import parse_train
from pocketvit.config import override
from pocketvit.errors import InputError
from pocketvit.inference.trained_model import TrainedModel
from pocketvit.model import create_model
from pocketvit.recipes import finetune
from pocketvit.training import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model of other classes and smaller images."""
    shape = {"width": 32, "depth": 2, "num_heads": 2, "positions": "learned", "drop_path": 0.2}
    model = create_model("digits", **shape, image_size=(8, 8), num_classes=2)
    path = tmp_path_factory.mktemp("trained") / "model.safetensors"
    TrainedModel(model, ("cat", "dog"), (0.5,) * 3, (0.2,) * 3, 1000).save(path)
    return path


@pytest.fixture
def arguments(trained, synthetic_set, tmp_path):
    places = ["--data", str(synthetic_set), "--data.cache-dir", str(tmp_path / "cache"), "--train.device", "cpu"]
    return ["finetune", *places, "--init-from", str(trained)]


def test_it_takes_the_models_fields_and_adapts_to_the_images(arguments, tmp_path):
    config = parse_train(arguments)
    model = create_model("digits", width=32, depth=2, num_heads=2).config
    wanted = finetune(model, 96, 8)
    own = {name: getattr(config, name) for name in ("init_from", "out")} | {
        f"{section}.{name}": getattr(getattr(config, section), name)
        for section, name in (("data", "source"), ("data", "cache_dir"), ("train", "device"))
    }
    assert config == override(wanted, own)
    assert (config.model.width, config.model.drop_path, config.data.resize, config.batch_size) == (32, 0.0, 8, 16)
    assert config.optim.layer_decay < 1 and config.schedule.warmup_frac == 0.1
    assert finetune(num_images=50_000).schedule.passes < 20 < config.schedule.passes == 79

    short = [*arguments, "--schedule.passes", "2", "--resize", "16", "--out", str(tmp_path / "run")]
    heard = Heard()
    result = train(parse_train(short), heard)
    assert result.recipe == "finetune" and result.images_total == 1000 + 2 * 96
    said = [line for line in heard.lines if line.startswith("init_from: ")]
    assert said[0] == "init_from: positions interpolated from 2 × 2 to 4 × 4 patches"
    assert said[1].endswith("; new: head.bias, head.weight")


def test_it_needs_a_model_whose_fields_it_can_tell(arguments, trained, tmp_path):
    with pytest.raises(InputError, match="finetune starts with a trained model; give --init-from RUN"):
        parse_train(arguments[:-2])
    code = tmp_path / "code.safetensors"
    content = trained.read_bytes()
    changed = content.replace(b'\\"attention\\": \\"standard\\"', b'\\"attention\\": \\"a.py:Att\\"')
    assert changed != content and len(changed) == len(content)
    code.write_bytes(changed)
    with pytest.raises(InputError, match="has user-defined code, a.py:Att; start from its run's fields"):
        parse_train([*arguments[:-1], str(code)])
