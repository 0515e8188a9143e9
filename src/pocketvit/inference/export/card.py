"""The model card of an exported model: what it is, how good it is, and lines of Python that use it."""

import re

from pocketvit.config import code_of
from pocketvit.config.checks import describe_size
from pocketvit.errors import InputError
from pocketvit.inference.export.origin import Origin
from pocketvit.inference.trained_model import TrainedModel
from pocketvit.tables import markdown_text

LIBRARIES = {"onnx": "onnx", "torchscript": "pytorch", "timm": "timm", "hf": "transformers", "safetensors": "pocketvit"}
"""By which the Hub knows the formats."""
PACKAGES = {
    "onnx": "onnxruntime pillow",
    "torchscript": "torch numpy pillow",
    "timm": "timm pillow",
    "hf": "transformers torchvision pillow",
    "safetensors": "pocketvit",
}
CODE = {
    "onnx": """\
import json, numpy as np, onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession("model.onnx")
names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
image = {image}
probabilities = session.run(["probabilities"], {{"images": np.array(image)[None]}})[0][0]
print(dict(zip(names, probabilities.tolist())))""",
    "torchscript": """\
import json, numpy as np, torch
from PIL import Image, ImageOps

model = torch.jit.load("model.pt", _extra_files=(files := {{"about.json": ""}}))
names = json.loads(files["about.json"])["class_names"]
image = {image}
logits, probabilities = model(torch.from_numpy(np.array(image))[None])
print(dict(zip(names, probabilities[0].tolist())))""",
    "timm": """\
import timm
from PIL import Image, ImageOps

model = timm.create_model("local-dir:.", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
logits = model(transform({upright})[None])
print(dict(zip(model.pretrained_cfg["label_names"], logits.{activation}[0].tolist())))""",
    "hf": """\
from PIL import Image, ImageOps
from transformers import ViTForImageClassification, ViTImageProcessor

model = ViTForImageClassification.from_pretrained(".")
image = {upright}
pixels = ViTImageProcessor.from_pretrained(".")(image, return_tensors="pt")
logits = model(**pixels).logits
print(dict(zip(model.config.id2label.values(), logits.{activation}[0].tolist())))""",
    "safetensors": """\
import numpy as np, pocketvit
from PIL import Image, ImageOps

trained = pocketvit.load_model("."{consent})
image = {image}
probabilities = trained.probabilities(np.array(image)[None])
print(dict(zip(trained.class_names, probabilities[0].tolist())))""",
}
"""The lines that use each format."""
NOTES = {
    "onnx": "`model.onnx` takes `images`, uint8 (batch, {height}, {width}, 3), and gives `logits` and `probabilities`, (batch, "
    "{classes}). Pixels are normalized inside. Its metadata have `class_names`, `mean`, `std` and `config_hash`.",
    "torchscript": "`model.pt` takes uint8 images (batch, {height}, {width}, 3) and gives logits and probabilities, (batch, "
    "{classes}). Pixels are normalized inside. It loads without PocketViT.",
    "timm": "`model_args` in `config.json` are the arguments of `timm.models.VisionTransformer`, whose state dict is "
    "`model.safetensors`; the same folder on the Hub is `hf-hub:OWNER/NAME`.",
    "hf": "The processor stretches images to {width} × {height} pixels.",
    "safetensors": "`pocketvit predict . image.png` does the same; its header has what is needed besides the weights.",
}
UPRIGHT = 'ImageOps.exif_transpose(Image.open("image.png")).convert("RGB")'
"""Reads an image, turned as its camera was held."""
FITS = {
    "stretch": '{image}.resize(({width}, {height}), Image.Resampling.BICUBIC)',
    "crop": 'ImageOps.fit({image}, ({width}, {height}), Image.Resampling.BICUBIC)',
    "pad": 'ImageOps.pad({image}, ({width}, {height}), Image.Resampling.BICUBIC, color="{background}")',
}  # fmt: skip
"""How an image gets the model's size, by `data.fit`."""
NAMED = 12  # classes that the first sentence names


def check_license(license: str | None) -> None:
    """Raise an `InputError` unless a license is written like the Hub's short names."""
    if license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", license):
        raise InputError(f"--license {license!r}: give the Hugging Face Hub's short name, such as mit or cc-by-4.0")


def model_card(trained: TrainedModel, format: str, origin: Origin, license: str | None) -> str:
    """The card, in Markdown with the Hub's metadata at its top."""
    height, width = trained.model.image_size
    sizes = {"height": height, "width": width, "classes": len(trained.class_names)}
    activation = "sigmoid()" if trained.multilabel else "softmax(dim=1)"
    consent = ", allow_code=True" if code_of(trained.model.config) else ""
    fitted = FITS[origin.data.fit].format(image=UPRIGHT, height=height, width=width, background=origin.data.background)
    code = CODE[format].format(image=fitted, upright=UPRIGHT, activation=activation, consent=consent)
    named = ", ".join(map(_quoted, trained.class_names[:NAMED])) + (", …" if len(trained.class_names) > NAMED else "")
    cells = {name: value.replace("|", "\\|") for name, value in _facts(trained, origin, license).items()}
    facts = "\n".join(f"| {name} | {value} |" for name, value in cells.items())
    share = "of which an image may have several" if trained.multilabel else "of which an image has one"
    return f"""---
license: {license or "unknown"}
library_name: {LIBRARIES[format]}
pipeline_tag: image-classification
tags:
- pocketvit
- vision-transformer
---
# {_quoted(origin.name)}

A small vision transformer, trained with PocketViT, for images of {describe_size((height, width))}. It gives the probability of
each of {len(trained.class_names)} classes, {share}:
{named}.

| | |
|---|---|
{facts}

## Use it

Run this in the folder of these files, after `pip install {PACKAGES[format]}`:

```python
{code}
```

{NOTES[format].format(**sizes)}
"""


def _facts(trained: TrainedModel, origin: Origin, license: str | None) -> dict[str, str]:
    """The rows of the card's table."""
    facts = {"parameters": f"{trained.model.num_params:,}", "license of the weights": license or "not stated"}
    if (result := origin.result) is None or origin.config is None:
        return {"test accuracy": "not known: the file was exported without its run's result"} | facts
    images = "the test images" if origin.test_images is None else f"{origin.test_images:,} test images"
    accuracy = f"{result.test_accuracy:.2%} on {images} of {_quoted(origin.config.data.source.rpartition('/')[2])}"
    if result.test_accuracy_tta is not None:
        accuracy += (
            f" ({result.test_accuracy_tta:.2%} with each image's logits and its mirror image's averaged, not done here)"
        )
    accuracy += ", after the last step" + (": exactly the classes of an image" if trained.multilabel else "")
    facts = {"test accuracy": accuracy} | facts
    if result.test_map is not None:
        facts = {"test mAP": f"{result.test_map:.2%}, the mean over classes of average precision"} | facts
    return facts | {
        "training images seen": f"{result.images_seen:,}",
        "training time": f"{result.train_s:,.1f} s on {markdown_text(result.device)}",
        "recipe, seed": f"{_quoted(result.recipe)}, {result.seed}",
        "config hash": f"`{result.config_hash}`",
        "versions": markdown_text(", ".join(f"{name} {version}" for name, version in result.versions.items())),
    }


def _quoted(text: str) -> str:
    """A name as code in Markdown, also inside a table."""
    return f"`{' '.join(text.split()).replace('`', chr(39)).replace('|', '¦')}`"
