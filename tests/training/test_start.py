"""Runs that start with a trained model's weights: what is taken over, and that they stand alone afterwards."""

import shutil

import numpy as np
import pytest
import torch
from predictions import predict_files
from safetensors.torch import load_file, save_file
from test_run import Heard, Interrupt, same_run, weights
from worker_processes import together

from pocketvit.config import ModelConfig, config_hash, load_config, override
from pocketvit.config.weights import Weights
from pocketvit.data import Split, Splits
from pocketvit.errors import InputError
from pocketvit.inference.evaluate import evaluate_run
from pocketvit.inference.logits import predict_logits
from pocketvit.inference.trained_model import TrainedModel, load_model
from pocketvit.model import ViT
from pocketvit.runs.result import RunResult
from pocketvit.training import Stopped, train
from pocketvit.training.distributed import ALONE
from pocketvit.training.progress import SilentReporter
from pocketvit.training.run import prepare
from pocketvit.training.start import start_from
from pocketvit.training.trainer import Trainer


@pytest.fixture(scope="module")
def source(small_in, tmp_path_factory):
    """A finished run."""
    config = override(small_in(tmp_path_factory.mktemp("source")), {"schedule.passes": 2})
    train(config)
    return config.out


@pytest.fixture
def tuned(small, source):
    """A run that starts from it."""
    return override(small, {"init_from": source, "schedule.passes": 3})


def start(config):
    """A run's model before its first step, and what the run has said."""
    heard = Heard()
    return prepare(config, ALONE, heard), [line for line in heard.lines if line.startswith("init_from")]


def test_a_run_starts_with_the_models_weights(tuned, source):
    trainer, said = start(tuned)
    held = weights(source)
    assert held.keys() == trainer.model.state_dict().keys()
    assert all(torch.equal(tensor, held[name]) for name, tensor in trainer.model.state_dict().items())
    assert said == [f"init_from: {len(held)} of {len(held)} tensors from {source / 'model.safetensors'}"]


def test_it_stands_alone_and_counts_all_images(tuned, source, tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(source, mine)
    straight, stopped = override(tuned, {"init_from": mine}), override(tuned, {"out": tmp_path / "stopped"})
    assert (
        config_hash(straight, "data") == config_hash(stopped, "data") != config_hash(tuned_from_nothing(tuned), "data")
    )
    result = train(straight)
    with pytest.raises(Stopped):
        train(override(stopped, {"init_from": mine, "train.checkpoint_every_passes": 0}), Interrupt(2))
    shutil.rmtree(mine)
    for checkpoint in (stopped.out / "checkpoint").iterdir():
        checkpoint.unlink()  # then it starts again, with the weights of its own copy
    train(load_config_of(stopped.out))
    assert same_run(straight.out, stopped.out)

    assert RunResult.read(result.file).images_total == result.images_total == 5 * 96
    assert load_model(straight.out).images == 5 * 96 and load_model(source).images == 2 * 96
    assert RunResult.read(source / "result.json").images_total is None
    shutil.rmtree(straight.out / "weights")
    assert evaluate_run(straight.out)["accuracy"] == result.test_accuracy
    image = tmp_path / "image.png"
    save_png(image)
    assert predict_files(straight.out, [image])


def tuned_from_nothing(config):
    return override(config, {"init_from": None})


def load_config_of(folder):
    return override(load_config(folder / "config.yaml"), {"out": folder})


def save_png(path):
    from PIL import Image

    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(path)


def test_a_copy_that_was_changed_is_not_used(tuned, tmp_path):
    with pytest.raises(Stopped):
        train(tuned, Interrupt(2))
    (copy,) = (tuned.out / "weights").iterdir()
    copy.write_bytes(copy.read_bytes() + b" ")
    with pytest.raises(InputError, match=f"{copy} has changed"):
        train(load_config_of(tuned.out))


def test_processes_start_alike(tuned, tmp_path):
    alone, config = train(tuned), override(tuned, {"out": tmp_path / "two"})
    together(2, tmp_path, train, config)
    for name, tensor in weights(config.out).items():
        torch.testing.assert_close(tensor, weights(alone.run_folder)[name], rtol=1e-2, atol=1e-3)


def splits(side=16, names=("red", "green", "blue")):
    images = np.random.default_rng(0).integers(0, 256, (24, side, side, 3), dtype=np.uint8)
    split = Split(images, np.arange(24) % len(names))
    return Splits(split, None, split, names, "synthetic", ())


def started(config, **options):
    heard = Heard()
    return Trainer(config, splits(**options), torch.device("cpu"), heard), heard.lines[-1]


def test_other_classes_get_a_new_head(tuned, source):
    held = weights(source)
    for names in (("one", "two", "three"), ("red", "green")):
        trainer, said = started(tuned, names=names)
        own = trainer.model.state_dict()
        assert said.endswith("; new: head.bias, head.weight")
        assert not trainer.model.head.bias.any() and torch.equal(own["norm.weight"], held["norm.weight"])


@pytest.mark.parametrize(("side", "pool"), [(24, "cls"), (8, "cls"), (24, "mean"), (16, "mean")])
def test_positions_of_another_grid_are_interpolated_as_in_timm(tuned, source, side, pool):
    from timm.layers import resample_abs_pos_embed

    trainer, said = started(override(tuned, {"model.pool": pool}), side=side)
    held, special = weights(source)["tokens.positions"], int(pool == "cls")
    wanted = held if special else held[:, 1:]
    if side != 16:
        wanted = resample_abs_pos_embed(wanted, [side // 4] * 2, num_prefix_tokens=special)
    torch.testing.assert_close(trainer.model.tokens.positions, torch.nn.Parameter(wanted))
    assert said.endswith("tensors from " + str(source / "model.safetensors")) == (pool == "cls")
    assert said.endswith("; not needed: tokens.cls") == (pool == "mean")


def test_what_does_not_fit_is_listed_once_for_all_blocks(tuned, source):
    trainer, said = started(override(tuned, {"model.layer_scale": 0.1, "model.mlp_ratio": 1.0}))
    new = "blocks.*.mlp.fc1.bias, blocks.*.mlp.fc1.weight, blocks.*.mlp.fc2.weight, blocks.*.scale1.gamma"
    assert f"; new: {new}, blocks.*.scale2.gamma" in said
    qkv = "blocks.1.attn.qkv.weight"
    assert torch.equal(trainer.model.state_dict()[qkv], weights(source)[qkv])


def test_whitening_leaves_what_was_taken_over(tuned, source):
    trainer, _ = started(override(tuned, {"model.patch_init": "whitening"}))
    assert trainer.filters is None
    name = "tokens.patches.proj.weight"
    assert torch.equal(trainer.model.state_dict()[name], weights(source)[name])
    anew, _ = started(override(tuned, {"model.patch_init": "whitening", "model.patch_size": 8}))
    assert anew.filters is not None


def test_what_tensors_do_not_show_is_said(tuned):
    changes = {"model.num_heads": 4, "model.activation": "gelu_tanh", "model.block_repeats": 2}
    _, said = start(override(tuned, changes))
    had = "model.num_heads=2, model.activation=gelu, model.block_repeats=1"
    assert said[0] == f"init_from: that model had {had}, so the same weights compute something else here"


def test_a_field_that_a_models_file_does_not_know_had_its_default():
    """The shipped model is older than the field."""
    started = start_from(ViT(ModelConfig(depth=1, block_repeats=2)), (), Weights.find("cifar10"))
    assert "that model had model.block_repeats=1," in started.notes[0]


def test_a_head_of_several_classes_an_image_is_kept_and_not_called_new(tmp_path):
    model = ViT(ModelConfig(width=24, depth=1, num_heads=2), num_classes=2)
    TrainedModel(model, ("a", "b"), (0.5,) * 3, (0.2,) * 3, objective="multilabel").save(tmp_path / "m.safetensors")
    other = ViT(model.config, num_classes=2)
    started = start_from(other, ("a", "b"), Weights.find(tmp_path / "m.safetensors"))
    assert torch.equal(other.head.weight, model.head.weight)
    assert len(started.notes) == 1, "nothing but how many tensors"


def test_what_cannot_be_started_from_is_refused(tuned, source, tmp_path):
    with pytest.raises(InputError, match="none of its blocks fits this model; give it the same model.width"):
        started(override(tuned, {"model.width": 48}))
    other = tmp_path / "other.safetensors"
    save_file(load_file(source / "model.safetensors"), other)
    with pytest.raises(InputError, match="is not a model that PocketViT saved"):
        started(override(tuned, {"init_from": other}))
    for wrong in (tmp_path, tmp_path / "nowhere.safetensors"):
        with pytest.raises(InputError, match="init_from: cannot read .*give the folder of a finished run"):
            override(tuned, {"init_from": wrong})
    with pytest.raises(InputError, match="init_from=3: must be the folder of a finished run"):
        override(tuned, {"init_from": 3})


def test_older_models_do_not_say_how_many_images_they_have_seen(tuned, source):
    trained = load_model(source)
    older = source.parent / "older.safetensors"
    type(trained)(trained.model, trained.class_names, trained.mean, trained.std).save(older)
    trainer = prepare(override(tuned, {"init_from": older}), ALONE, SilentReporter())
    assert trainer.images_total is None and trainer.trained().images is None


@pytest.mark.parametrize("pool", ["cls", "attention"])
def test_a_linear_probe_trains_the_classifier_alone(tuned, source, tmp_path, pool):
    probe = override(tuned, {"train.freeze": "encoder", "model.pool": pool, "optim.ema_decay": 0.5})
    chunk = prepare(probe, ALONE, SilentReporter()).chunks.load(0, 0, 1)
    assert chunk.drop_path is None, "the tokens are those of a test"
    result = train(probe)
    before, after = weights(source), weights(probe.out)
    changed = {name for name in after if name not in before or not torch.equal(before[name], after[name])}
    own = {"cls": set(), "attention": {"pool.score.weight", "pool.score.bias", "tokens.positions"}}[pool]
    assert changed == {"head.weight", "head.bias"} | own
    trained = {name: tensor for name, tensor in after.items() if name.startswith(("head", "pool"))}
    assert result.num_params == sum(tensor.numel() for tensor in trained.values())
    stopped = override(probe, {"out": tmp_path / "stopped"})
    with pytest.raises(Stopped):
        train(stopped, Interrupt(9))
    train(stopped)
    assert same_run(probe.out, stopped.out)


@pytest.mark.parametrize(
    "fields", [{"model.pool": "cls"}, {"model.pool": "cls_per_class"}, {"model.head": "mlp"}], ids=str
)
def test_a_probe_reads_tokens_that_hardly_differ(tuned, source, tmp_path, fields):
    """As a logistic regression on standardized features; gradient descent on the features as they are does not get there."""
    trained, _ = started(override(tuned, fields))
    with torch.no_grad():
        trained.model.norm.weight.mul_(0.02)
        trained.model.norm.bias.add_(3)
    flat = tmp_path / "flat.safetensors"
    trained.trained().save(flat)
    probe = override(tuned, fields | {"init_from": flat, "train.freeze": "encoder", "optim.lr": 0.02})
    trainer = prepare(probe, ALONE, SilentReporter())
    images = trainer.splits.test.images
    before = trainer.averaged()
    torch.testing.assert_close(
        trainer.trained().logits(images), logits_of(before, images, trainer), rtol=1e-3, atol=1e-3
    )
    assert train(probe).test_accuracy >= 0.9, "three colours are easy"
    after = load_model(probe.out).model.state_dict()
    assert torch.equal(after["norm.bias"], load_file(flat)["norm.bias"])


def logits_of(model, images, trainer):
    return predict_logits(model, images, trainer.mean, trainer.std)


@pytest.mark.parametrize(
    ("values", "other"),
    [
        ({"optim.name": "muon"}, "optim.name=muon"),
        ({"objective.name": "dino"}, "objective.name=dino"),
        ({"objective.drloc": 0.1}, "objective.drloc=0.1"),
    ],
)
def test_what_trains_the_encoder_is_refused_while_it_is_frozen(small, values, other):
    with pytest.raises(InputError, match=f"train.freeze=encoder cannot be combined with {other}"):
        override(small, {"train.freeze": "encoder"} | values)
