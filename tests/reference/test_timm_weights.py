"""Runs that start from a state dict of timm's vision transformer: the same model gives the same logits."""

import io
import zipfile
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer

from pocketvit.config.weights import Weights
from pocketvit.errors import InputError
from pocketvit.inference.model_file import described
from pocketvit.model import create_model
from pocketvit.training.start import start_from

CLASSES = tuple("abcde")
SHAPE = {"patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0, "num_classes": 5}
FORMS = {
    "plain": ({}, {}),
    "mean": ({"class_token": False, "global_pool": "avg", "fc_norm": False}, {"pool": "mean"}),
    "without-bias": ({"qkv_bias": False}, {}),
    "scaled": ({"init_values": 0.3}, {"layer_scale": 0.1}),
    "normalized-queries": ({"qk_norm": True}, {"qk_norm": True}),
    "registers": ({"reg_tokens": 2}, {"num_registers": 2}),
    "registers-without-positions": ({"reg_tokens": 4, "no_embed_class": True}, {"num_registers": 4}),
}


def timm_model(seed=0, **options):
    """timm's model, with weights large enough that every part matters."""
    generator = torch.Generator().manual_seed(seed)
    theirs = VisionTransformer(img_size=16, **SHAPE | options).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return theirs


def our_model(side=16, **fields):
    shape = {"width": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0, "num_cls_tokens": 1}
    return create_model("paper", **shape | fields, image_size=(side, side), num_classes=len(CLASSES)).eval()


def saved(theirs, path, wrapped=None):
    state = theirs.state_dict()
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({wrapped: state, "epoch": 3} if wrapped else state, path)
    return Weights.find(path)


@pytest.fixture
def images():
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("form", FORMS)
def test_the_same_model_gives_the_same_logits(form, images, tmp_path):
    options, fields = FORMS[form]
    theirs, ours = timm_model(**options), our_model(**fields)
    start = start_from(ours, CLASSES, saved(theirs, tmp_path / "timm.safetensors"))
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-5)
    assert start.images is None
    assert start.notes[0] == "the head is kept, though the file does not name its 5 classes"
    assert start.notes[-1].endswith("; new: blocks.*.attn.qkv.bias" if form == "without-bias" else ".safetensors")


@pytest.mark.parametrize("form", FORMS)
def test_the_fields_of_a_model_follow_from_its_shapes(form, tmp_path):
    options, fields = FORMS[form]
    found, side = described(saved(timm_model(**options), tmp_path / "timm.safetensors"))
    wanted, unseen = our_model(**fields).config, {"layer_scale": found.layer_scale, "num_heads": found.num_heads}
    assert side == 16 and found == replace(wanted, drop_path=found.drop_path, **unseen)
    assert found.num_heads == (2 if form == "normalized-queries" else 1), "of 64 channels, if they do not show"
    assert (found.layer_scale is None) == (wanted.layer_scale is None)


@pytest.mark.parametrize(("ending", "wrapped"), [(".pt", None), (".pth", "model"), (".pt", "state_dict")])
def test_pytorchs_own_format(ending, wrapped, images, tmp_path):
    theirs, ours = timm_model(), our_model()
    weights = saved(theirs, tmp_path / f"timm{ending}", wrapped)
    start_from(ours, CLASSES, weights)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-5)
    assert weights.copied == f"weights/{weights.digest}{ending}"
    (tmp_path / "weights").mkdir()
    copy = tmp_path / weights.copied
    copy.write_bytes(weights.read())
    assert Weights.find(copy).digest == weights.digest


@pytest.mark.parametrize(("form", "special"), [("plain", 1), ("registers-without-positions", 0)])
def test_other_images_and_classes(form, special, tmp_path):
    options, fields = FORMS[form]
    theirs, ours = timm_model(num_classes=7, **options), our_model(side=24, **fields)
    start = start_from(ours, CLASSES, saved(theirs, tmp_path / "timm.safetensors"))
    wanted = resample_abs_pos_embed(theirs.pos_embed, [6, 6], num_prefix_tokens=special)
    found = ours.tokens.positions[:, ours.tokens.num_special - special :]
    torch.testing.assert_close(found, torch.nn.Parameter(wanted))
    assert start.notes[0] == "positions interpolated from 4 × 4 to 6 × 6 patches"
    assert len(start.notes) == 2 and start.notes[1].endswith("; new: head.bias, head.weight")


def test_what_differs_or_has_no_place_is_said(tmp_path):
    theirs = timm_model(init_values=0.3, class_token=False, global_pool="avg", fc_norm=True, pre_norm=True)
    start = start_from(our_model(pool="mean"), CLASSES, saved(theirs, tmp_path / "timm.safetensors"))
    assert start.notes[0].startswith("that model normalized the mean of its tokens")
    ignored = "blocks.*.scale1.gamma, blocks.*.scale2.gamma, norm_pre.bias, norm_pre.weight"
    assert start.notes[-1].endswith(f"; not needed: {ignored}")
    with pytest.raises(InputError, match=r"none of its blocks fits this model; give it the same model.width, 32"):
        start_from(our_model(width=48), CLASSES, saved(theirs, tmp_path / "timm.safetensors"))


def test_a_distillation_token(tmp_path):
    theirs = timm_model().state_dict()
    more = {"dist_token": torch.ones(1, 1, 32), "pos_embed": torch.randn(1, 18, 32), "head_dist.bias": torch.ones(5)}
    path = tmp_path / "deit.safetensors"
    save_file(theirs | more, path)
    ours = our_model()
    notes = start_from(ours, CLASSES, Weights.find(path)).notes
    assert notes[-1].endswith("; not needed: distilled_head.bias, tokens.distilled")
    assert torch.equal(ours.tokens.positions[:, 1:], more["pos_embed"][:, 2:])


class Evil:
    def __reduce__(self):
        return print, ("run",)


def bytes_of(content, **options):
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def compressed(content):
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return packed.getvalue()


@pytest.mark.filterwarnings("ignore:Validating sparse")
@pytest.mark.parametrize(
    ("content", "why"),
    [
        (bytes_of({"a": Evil()}), "holds more than tensors, or is damaged"),
        (bytes_of({"a": torch.zeros(3)}), "its tensors are a, …"),
        (bytes_of({"a": 3}), "holds something else than tensors by name"),
        (bytes_of([torch.zeros(3)]), "holds something else than tensors by name"),
        (bytes_of({"a": torch.zeros(1).expand(10**9)}), "holds something else than tensors by name"),
        (bytes_of({"a": torch.zeros(3).to_sparse()}), "holds something else than tensors by name"),
        (compressed(bytes_of({"a": torch.zeros(3)})), "is compressed"),
        (bytes_of({"a": torch.zeros(3)}, _use_new_zipfile_serialization=False), "save it again"),
        (bytes_of({"a": torch.zeros(3)})[:-40], "save it again"),
        (b"nothing", "save it again"),
    ],
    ids=["code", "few", "number", "list", "repeated", "sparse", "compressed", "old", "cut", "nothing"],
)
def test_other_files_are_refused(content, why, tmp_path, capsys):
    path = tmp_path / "other.pt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=why):
        start_from(our_model(), CLASSES, Weights.find(path))
    assert "run" not in capsys.readouterr().out
