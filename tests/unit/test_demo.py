"""The demo: what it answers, and its page in a real browser."""

import base64
import http.client
import io
import json
import os
import re
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from pocketvit import demo as module
from pocketvit.config import ModelConfig
from pocketvit.demo import PNG, Demo, serve
from pocketvit.errors import InputError
from pocketvit.inference.trained_model import TrainedModel
from pocketvit.model import ViT

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Writes a model for 12 × 8 images in three classes, as it starts; returns its file."""

    def model(names=("cat", "dog", EVIL), **fields) -> Path:
        path = tmp_path_factory.mktemp("model") / "model.safetensors"
        config = ModelConfig(width=8, depth=2, num_heads=2, patch_size=4, **fields)
        vit = ViT(config, image_size=(12, 8), num_classes=len(names))
        TrainedModel(vit, names, (0.5,) * 3, (0.25,) * 3).save(path)
        return path

    return model


@pytest.fixture
def image(tmp_path) -> Path:
    """A file in a format that no browser shows."""
    path = tmp_path / "image.tga"
    pixels = np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def text(html: str) -> str:
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", html, flags=re.DOTALL).replace("\xa0", " ").split())


def test_an_answer_has_each_class_and_a_map_for_each_layer_and_token(model, image):
    demo = Demo(model(num_cls_tokens=2))
    html = demo.of_file(str(image))
    said = text(html)
    pixels = np.asarray(Image.open(image).resize((8, 12), Image.Resampling.BICUBIC))
    expected = dict(zip(("cat", "dog"), demo.trained.probabilities(pixels[None])[0]))
    for name, share in expected.items():
        assert f"{name} {100 * share:.1f} %" in said
    assert html.count('class="map"') == 2 * 2 and "CLS 1 CLS 2 layer 1 layer 2" in said
    assert "<script" not in html and "&lt;script&gt;" in html
    [seen] = re.findall(r'<img src="([^"]+)" alt="image.tga', html)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(seen.partition(",")[2])))), pixels)
    uris = re.findall(r'src="(data:[^"]+)" alt="CLS \d, layer \d"', html)
    maps = demo.trained.attention_maps(pixels[None])
    looks = maps.on_patches(maps.weights[:, 0].mean(dim=1))
    assert uris == [module.map_uri(one.numpy()) for layer in looks for one in layer]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "Where the CLS token looks"),
        ({"pool": "mean", "num_cls_tokens": 0}, "Where the patches look"),
        ({"pool": "cls_per_class"}, "Where each CLS token looks"),
    ],
)
def test_the_columns_are_named_after_what_the_head_reads(model, image, fields, words):
    html = Demo(model(**fields)).of_file(str(image))
    said = text(html)
    assert words in said
    assert ('class="single"' in html) == (fields.get("pool") != "cls_per_class"), "maps of one token lie side by side"
    assert ("cat dog &lt;script&gt;alert(1)&lt;/script&gt; layer 1" in said) == (fields.get("pool") == "cls_per_class")


def test_what_is_no_image_is_said(model, tmp_path):
    demo = Demo(model())
    broken = tmp_path / f"{EVIL.replace('/', '')}.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n")
    html = demo.of_file(str(broken))
    assert "; replace or remove it" in html and "<script" not in html and 'role="alert"' in html
    assert demo.of_file(None) == ""


def test_a_drawing_is_a_png_of_limited_length(model, image, monkeypatch):
    demo = Demo(model())
    stream = io.BytesIO()
    Image.open(image).save(stream, "PNG")
    uri = PNG + base64.b64encode(stream.getvalue()).decode()
    assert "cat" in demo.of_drawing(uri)
    monkeypatch.setattr(module, "MOST_DRAWN", len(uri) - 1)
    refused = "this is not a drawing"
    for wrong in (uri, None, "data:image/svg+xml;base64,AAAA", PNG + "!", uri.removeprefix("data:")):
        assert refused in demo.of_drawing(wrong)


def test_without_a_run_the_weights_of_the_package_are_taken(model, image, monkeypatch):
    path = model()
    monkeypatch.setattr(module, "find_run", lambda run: {"cifar10": path}[run])
    assert "cat" in Demo().of_file(str(image))

    monkeypatch.setattr(module, "find_run", lambda run: path.parent / run)
    with pytest.raises(InputError, match="no weights come with this version; give a run: pocketvit demo runs/NAME"):
        Demo()
    with pytest.raises(InputError, match="no trained model at .*none"):
        Demo("runs/none")


def test_gradio_is_asked_for(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(InputError, match=r"pip install 'pocketvit\[demo\]'"):
        serve(Demo(model()))


@pytest.fixture(scope="module")
def served(model):
    """The page's address, and the hosts that this process connected to while it was served."""
    pytest.importorskip("gradio")
    hosts, connect = set(), socket.socket.connect

    def watched(self, address):
        hosts.add(address[0] if isinstance(address, tuple) else "here")
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", watched)
        patch.setattr(module, "MOST_BYTES", 10_000)
        patch.setenv("GRADIO_TEMP_DIR", "elsewhere")
        page = serve(Demo(model(num_cls_tokens=2)), block=False)
        yield page.local_url, hosts
        page.close()


def answered(chromium, url: str, width: int, act) -> str:
    """Open the page, do something, and return the answer's text; nothing may be wrong in between."""
    chromium.open(url, width)
    chromium.wait_for("!!document.querySelector('input[type=file]')")
    act()
    chromium.wait_for("document.querySelectorAll('#answer .bars li').length == 3")
    wrong = [event for event in map(json.loads, chromium.complaints()) if event.get("type") != "warning"]
    assert wrong == []
    outside = [each for each in chromium.requests() if not each.startswith((url, "data:", "blob:"))]
    assert outside == [], "the page asks elsewhere"
    assert chromium.value("document.documentElement.scrollWidth") == width, "the page scrolls sideways"
    return chromium.value("document.querySelector('#answer').innerText").replace("\xa0", " ")


@pytest.mark.long
@pytest.mark.parametrize("width", [390, 1200])
def test_an_image_goes_in_and_the_probabilities_come_out(chromium, served, image, width, tmp_path):
    url, hosts = served
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", url)

    def drop():
        root = chromium.call("DOM.getDocument")["root"]["nodeId"]
        node = chromium.call("DOM.querySelector", nodeId=root, selector="input[type=file]")["nodeId"]
        chromium.call("DOM.setFileInputFiles", files=[str(image)], nodeId=node)

    said = answered(chromium, url, width, drop)
    assert len(re.findall(r"\d+\.\d %", said)) == 3 and EVIL in said and "CLS 2" in said
    assert chromium.value("document.querySelectorAll('#answer .map').length") == 4
    assert list(Path(os.environ["GRADIO_TEMP_DIR"]).rglob("image.tga")), "uploads lie where they end with the page"
    assert hosts <= {"127.0.0.1", "here"}


@pytest.mark.long
def test_a_drawing_is_answered_when_the_pen_is_lifted(chromium, served):
    def draw():
        chromium.value("[...document.querySelectorAll('[role=tab]')].find(e => e.innerText.includes('Draw')).click()")
        chromium.wait_for("document.querySelector('canvas')?.getBoundingClientRect().width > 100")
        place = "JSON.stringify(document.querySelector('canvas').getBoundingClientRect())"
        box = json.loads(chromium.value(place))
        for kind, x, y in (("mousePressed", 80, 40), ("mouseMoved", 140, 200), ("mouseReleased", 140, 200)):
            where = {"x": box["x"] + x, "y": box["y"] + y}
            chromium.call("Input.dispatchMouseEvent", type=kind, **where, button="left", buttons=1, clickCount=1)

    answered(chromium, served[0], 390, draw)
    seen = chromium.value("document.querySelector('#answer img').src")
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(seen.partition(",")[2]))))
    assert pixels.max() > 100 and pixels.min() == 0, "a white line on black, made small"


@pytest.mark.long
def test_a_large_upload_is_refused(served):
    def status(size: int) -> int:
        edge = b"--edge\r\n"
        about = b'Content-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        body = edge + about + bytes(size) + b"\r\n--edge--\r\n"
        kind = {"Content-Type": "multipart/form-data; boundary=edge"}
        place = urlsplit(served[0])
        connection = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
        connection.request("POST", "/gradio_api/upload", body, kind)
        return connection.getresponse().status

    assert (status(9_000), status(11_000)) == (200, 413)
