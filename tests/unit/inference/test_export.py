"""Exported models give the same answers in the programs they are for, and their cards say how."""

import contextlib
import io
import json
import re
import subprocess
import sys
import warnings
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import ExifTags, Image
from safetensors.torch import load_file

from pocketvit.cli import dispatch
from pocketvit.config import ModelConfig
from pocketvit.errors import InputError
from pocketvit.inference.export.plain import misfit
from pocketvit.inference.trained_model import load_model

LONG = [
    pytest.param(name, True, marks=pytest.mark.long) for name in ("onnx", "hf")
]  # whose libraries take seconds to load


def code_of_card(folder: Path) -> str:
    return re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]


def save_turned(image: np.ndarray, path: Path) -> None:
    """Write an image on its side, with the orientation that turns it upright, as a phone held upright does."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be turned by 90° clockwise
    Image.fromarray(np.rot90(image)).save(path, exif=exif)


def exported(trained, folder: Path, kind: str, **options) -> Path:
    return trained.export(folder / kind, kind, **options)


@pytest.fixture
def trained(run_folder):
    return load_model(run_folder)


@pytest.mark.parametrize(
    ("kind", "multilabel"), [("timm", False), ("timm", True), ("safetensors", False), ("safetensors", True), *LONG]
)
def test_the_lines_of_the_card_give_our_probabilities(kind, multilabel, made, images, tmp_path, monkeypatch):
    """Also where an image may have several classes."""
    trained = made("multilabel" if multilabel else "classification")
    folder = exported(trained, tmp_path, kind)
    save_turned(images[0], folder / "image.png")
    monkeypatch.chdir(folder)
    said = io.StringIO()
    with contextlib.redirect_stdout(said), warnings.catch_warnings(action="ignore"):  # PyTorch's, on TorchScript
        exec(compile(code_of_card(folder), "card", "exec"), {})
    found = eval(said.getvalue())
    assert tuple(found) == trained.class_names
    np.testing.assert_allclose(list(found.values()), trained.probabilities(images[:1])[0], atol=1e-5)


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_the_lines_of_the_card_read_images_as_predict_does(fit, run_folder, tmp_path, monkeypatch, capsys):
    """A photo of another shape, taken on its side, and a run that crops or pads."""
    run = tmp_path / "run"
    run.mkdir()
    for file in run_folder.iterdir():
        (run / file.name).write_bytes(file.read_bytes())
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"] |= {"fit": fit, "background": "white"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    folder = exported(load_model(run), tmp_path, "safetensors")
    photo = np.random.default_rng(1).integers(0, 256, (31, 17, 3), dtype=np.uint8)
    save_turned(photo, folder / "image.png")
    monkeypatch.chdir(folder)
    exec(compile(code_of_card(folder), "card", "exec"), {})
    found = eval(capsys.readouterr().out)
    for model in (run, folder):
        assert dispatch(["predict", str(model), "image.png", "--json"]) == 0
        wanted = json.loads(capsys.readouterr().out)[0]["probabilities"]
        np.testing.assert_allclose(list(found.values()), list(wanted.values()), atol=1e-6)


def test_torchscript_needs_no_pocketvit(made, images, tmp_path):
    """The lines of the card, in a process that cannot import it; then batches of several sizes."""
    trained = made(pool="cls_per_class")
    folder = exported(trained, tmp_path, "torchscript")
    Image.fromarray(images[0]).save(folder / "image.png")
    np.save(folder / "images.npy", images)
    more = """
images = torch.from_numpy(np.load("images.npy"))
np.savez("found.npz", *[model(images[:n])[0].numpy() for n in (1, 7, 100)])
"""
    with zipfile.ZipFile(folder / "model.pt") as archive:
        held = b"".join(map(archive.read, archive.namelist()))
    assert str(Path(torch.__file__).parent).encode() not in held, "no paths of this machine"
    code = f"import sys\nsys.modules['pocketvit'] = None\n{code_of_card(folder)}{more}"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = eval(done.stdout)
    assert tuple(found) == trained.class_names
    np.testing.assert_allclose(list(found.values()), trained.probabilities(images[:1])[0], atol=1e-5)
    wanted = trained.logits(images).numpy()
    for logits in np.load(folder / "found.npz").values():
        np.testing.assert_allclose(logits, wanted[: len(logits)], atol=1e-5)


OTHERS = {"patch_stride": 2, "pool": "attention", "head": "mlp", "qk_norm": True, "norm": "rmsnorm", "depthwise": 3,
          "layer_scale": 0.5, "num_registers": 2, "block_repeats": 2}  # fmt: skip
FORMS = {
    "a CLS token for each class": {"pool": "cls_per_class"},
    "linear, rotary": {"attention": "linear", "positions": "rope"},
    "sparse, shifted": {"attention": "sparse", "stem": "shifted", "patch_size": 2, "num_cls_tokens": 2},
    "locality, low rank": {
        "attention": "locality",
        "q_rank": 3,
        "num_kv_heads": 1,
        "stem": "conv",
        "pool": "mean",
        "head": "mlp",
    },
    "the others": OTHERS,
}


@pytest.mark.parametrize("fields", FORMS.values(), ids=FORMS)
def test_torchscript_takes_every_model(fields, made, images, tmp_path):
    trained = made("multilabel" if "head" in fields else "classification", **fields, depth=1)
    with warnings.catch_warnings(action="ignore"):  # TorchScript is deprecated
        model = torch.jit.load(exported(trained, tmp_path, "torchscript") / "model.pt")
        logits, probabilities = model(torch.from_numpy(images))
    torch.testing.assert_close(logits, trained.logits(images), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(probabilities, trained.probabilities(images), atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("fields", FORMS.values(), ids=FORMS)
def test_onnx_equals_pytorch_for_every_model(fields, made, images, tmp_path):
    import onnxruntime

    trained = made(**fields, depth=1)
    file = exported(trained, tmp_path, "onnx") / "model.onnx"
    session = onnxruntime.InferenceSession(file)
    (taken,) = session.get_inputs()
    assert (taken.name, taken.type, taken.shape[1:]) == ("images", "tensor(uint8)", [8, 8, 3])
    for batch in (images, images[:1]):
        logits, probabilities = session.run(["logits", "probabilities"], {"images": batch})
        np.testing.assert_allclose(logits, trained.logits(batch), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(probabilities, trained.probabilities(batch), atol=1e-5)
    about = {name: json.loads(value) for name, value in session.get_modelmeta().custom_metadata_map.items()}
    assert about["class_names"] == list(trained.class_names) and about["image_size"] == [8, 8]
    assert about["mean"] == list(trained.mean) and about["std"] == list(trained.std)
    assert str(Path(__file__).parents[3]).encode() not in file.read_bytes(), "no paths of this machine"


MERGED = {
    "plain": {},
    "ranks": {"q_rank": 3, "k_rank": 5, "v_rank": 2},
    "latent": {"kv_rank_shared": 6, "num_kv_heads": 2},
    "keys": {"num_kv_heads": 1, "q_rank": 4},
    "scale": {"layer_scale": 0.5, "mlp_ratio": 1.7, "activation": "gelu_tanh"},
    "sines": {"positions": "sincos"},
    "nowhere": {"positions": "none", "image_size": (8, 12)},
}
ONLY_TIMM = {"qk_norm": {"qk_norm": True, "v_rank": 3}, "mean": {"pool": "mean", "num_registers": 3}}
ALL = MERGED | ONLY_TIMM


@pytest.mark.parametrize("fields", ALL.values(), ids=ALL)
def test_timm_gives_the_same_logits(fields, made, images, tmp_path):
    from timm.models.vision_transformer import VisionTransformer

    trained = made(**fields)
    images = np.resize(images, (20, *trained.model.image_size, 3))
    folder = exported(trained, tmp_path, "timm")
    theirs = VisionTransformer(**json.loads((folder / "config.json").read_text())["model_args"]).eval()
    theirs.load_state_dict(load_file(folder / "model.safetensors"))
    torch.testing.assert_close(theirs(normalised(trained, images)), trained.logits(images), rtol=1e-4, atol=1e-4)


def normalised(trained, images):
    return (torch.from_numpy(images / 255).permute(0, 3, 1, 2).float() - torch.tensor(trained.mean)[:, None, None]) / (
        torch.tensor(trained.std)[:, None, None]
    )


@pytest.mark.long
@pytest.mark.parametrize("fields", MERGED.values(), ids=MERGED)
def test_transformers_gives_the_same_logits(fields, made, images, tmp_path):
    from transformers import ViTForImageClassification, ViTImageProcessor

    trained = made(**fields)
    images = np.resize(images, (20, *trained.model.image_size, 3))
    folder = exported(trained, tmp_path, "hf")
    theirs, left = ViTForImageClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(left.values()), left
    inputs = ViTImageProcessor.from_pretrained(folder)(list(images), return_tensors="pt")
    torch.testing.assert_close(theirs(**inputs).logits, trained.logits(images), rtol=1e-4, atol=1e-4)
    assert theirs.config.id2label == dict(enumerate(trained.class_names))


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        ("timm", {"num_cls_tokens": 2}, "model.num_cls_tokens=2 does not fit timm's VisionTransformer; use --format onnx, tor"),
        ("timm", {"pool": "cls_per_class"}, "model.pool=cls_per_class does not fit"),
        ("timm", {"pool": "attention"}, "model.pool=attention does not fit"),
        ("timm", {"positions": "rope"}, "model.positions=rope does not fit"),
        ("timm", {"norm": "rmsnorm"}, "model.norm=rmsnorm does not fit"),
        ("timm", {"patch_stride": 2}, "model.patch_stride=2 does not fit"),
        ("timm", {"stem": "conv"}, "model.stem=conv does not fit"),
        ("timm", {"attention": "linear"}, "model.attention=linear does not fit"),
        ("timm", {"head": "mlp"}, "model.head=mlp does not fit"),
        ("timm", {"depthwise": 3}, "model.depthwise=3 does not fit"),
        ("timm", {"block_repeats": 2}, "model.block_repeats=2 does not fit"),
        ("hf", {"qk_norm": True}, "model.qk_norm=True does not fit transformers' ViTForImageClassification; use --format onnx, "
         "torchscript, safetensors or timm"),
        ("hf", {"pool": "mean"}, "model.pool=mean does not fit"),
        ("hf", {"num_registers": 1}, "model.num_registers=1 does not fit"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_name(kind, fields, words, made, tmp_path):
    with pytest.raises(InputError, match=f"^{re.escape(words)}"):
        exported(made(**fields), tmp_path, kind)
    assert not (tmp_path / kind).exists()


@pytest.mark.parametrize("kind", ["timm", "hf"])
def test_a_field_that_is_new_does_not_fit(kind, made):
    @dataclass(frozen=True, kw_only=True)
    class Newer(ModelConfig):
        new: bool = False

    model = made().model
    for new, odd in ((False, None), (True, "model.new=True")):
        model.config = Newer(new=new)
        assert misfit(model, kind) == odd


@pytest.mark.parametrize("kind", ["torchscript", "safetensors"])
def test_code_of_your_own_comes_along(kind, made, images, tmp_path, monkeypatch, capsys):
    """As text for PocketViT, which the card's lines agree to run, and computed for others."""
    example = Path(__file__).parents[3] / "docs" / "examples" / "my_attention.py"
    trained = made(attention=f"{example}:MyAttention", depth=1)
    folder = exported(trained, tmp_path, kind)
    assert kind != "safetensors" or (folder / "code" / "my_attention.py").read_bytes() == example.read_bytes()
    Image.fromarray(images[0]).save(folder / "image.png")
    monkeypatch.chdir(folder)
    with warnings.catch_warnings(action="ignore"):  # TorchScript is deprecated
        exec(compile(code_of_card(folder), "card", "exec"), {})
    found = eval(capsys.readouterr().out)
    np.testing.assert_allclose(list(found.values()), trained.probabilities(images[:1])[0], atol=1e-5)
    with pytest.raises(InputError, match="my_attention.py:MyAttention does not fit timm's VisionTransformer"):
        exported(trained, tmp_path, "timm")


def test_code_that_cannot_be_exported_is_named(made, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("""
import torch
from torch import nn

class Watched(nn.Module):
    def __init__(self, config, rotary):
        super().__init__()
        self.proj = nn.Linear(config.width, config.width)

    def forward(self, x):
        if torch.jit.is_tracing():
            raise RuntimeError("not while I am watched")
        return self.proj(x)
""")
    with pytest.raises(
        InputError, match="mine.py:Watched cannot be exported to TorchScript: .*watched; use --format safetens"
    ):
        exported(made(attention=f"{file}:Watched"), tmp_path, "torchscript")


def test_a_card_has_the_numbers_of_the_run(trained, tmp_path):
    card = (exported(trained, tmp_path, "safetensors", license="cc-by-4.0") / "README.md").read_text()
    about = yaml.safe_load(card.split("---")[1])
    assert about["license"] == "cc-by-4.0" and about["pipeline_tag"] == "image-classification"
    for words in (
        "# `digits-007`", "96.42% on 360 test images of `digits`", "| 4,224 |", "3.2 s on a CPU (1 thread)", "`0123456789ab`",
        f"{trained.model.num_params:,}", "| license of the weights | cc-by-4.0 |", "8 × 8 pixels",
    ):  # fmt: skip
        assert words in card
    config = yaml.safe_load((tmp_path / "safetensors" / "config.yaml").read_text())
    assert config["out"] is None and config["data"]["cache_dir"] is None, "no paths of this machine"


def test_a_card_of_several_classes_has_their_score(run_folder, made, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    made("multilabel").save(run / "model.safetensors")
    (run / "config.yaml").write_bytes((run_folder / "config.yaml").read_bytes())
    result = json.loads((run_folder / "result.json").read_text()) | {"test_map": 0.8125}
    del result["model_digest"]
    (run / "result.json").write_text(json.dumps(result))
    card = (exported(load_model(run), tmp_path, "safetensors") / "README.md").read_text()
    assert "| test mAP | 81.25%" in card and "exactly the classes of an image" in card


def test_other_weights_do_not_get_the_numbers_of_the_run(run_folder, made, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.yaml", "result.json"):
        (run / name).write_bytes((run_folder / name).read_bytes())
    made(layer_scale=0.1).save(run / "model.safetensors")
    card = (exported(load_model(run), tmp_path, "safetensors") / "README.md").read_text()
    assert "96.42%" not in card and "not known" in card


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--format", "tflite"], "--format takes"),
        (["--format", "timm", "--license", "My Own"], "--license 'My Own': give the Hugging Face Hub's short name"),
        (
            ["--format", "timm", "--push", "name"],
            "--push 'name' is not a name on the Hugging Face Hub: expected OWNER/NAME",
        ),
        (["--format", "timm", "--out", "."], ". exists already; choose a new or an empty folder"),
    ],
)
def test_wrong_arguments_are_refused(arguments, words, run_folder, monkeypatch):
    monkeypatch.chdir(run_folder)
    before = sorted(run_folder.iterdir())
    with pytest.raises(InputError, match=f"^{re.escape(words)}"):
        dispatch(["export", ".", *arguments])
    assert sorted(run_folder.iterdir()) == before, "nothing is left behind"


@pytest.mark.parametrize(
    ("missing", "arguments"),
    [("onnxscript", ["--format", "onnx"]), ("huggingface_hub", ["--format", "timm", "--push", "me/digits"])],
)
def test_a_missing_package_is_named_with_its_extra(missing, arguments, run_folder, monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == missing else find_spec(name))
    for module in ("whole", "hub"):
        monkeypatch.setattr(
            f"pocketvit.inference.export.{module}.find_spec", lambda name: None if name == missing else find_spec(name)
        )
    with pytest.raises(InputError, match=rf"{missing}: pip install 'pocketvit\[export\]'$"):
        dispatch(["export", str(run_folder), "--out", str(tmp_path / "out"), *arguments])
    assert not (tmp_path / "out").exists()


def test_the_command_writes_the_next_free_folder(run_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        assert dispatch(["export", str(run_folder), "--format", "timm"]) == 0
        folder = Path("export") / f"digits-007-timm-00{number}"
        assert {file.name for file in folder.iterdir()} == {"README.md", "config.json", "model.safetensors"}
        assert f"{folder}/model.safetensors" in capsys.readouterr().out
