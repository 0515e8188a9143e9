"""A page in the browser: an image goes in, the probabilities come out, and where each CLS token looks, layer by layer.

It is served on this machine alone, by Gradio, and tells nobody else anything. Images are read as everywhere in the package,
never by Gradio.

Shapes: L layers, T tokens that the head reads, H W pixels.
"""

import base64
import binascii
import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from pocketvit.config import DataConfig, load_config
from pocketvit.config.shipped import find_run
from pocketvit.data.pixels import decode, resize
from pocketvit.device import choose_device
from pocketvit.errors import InputError
from pocketvit.inference.trained_model import load_model
from pocketvit.report.pictures import image_uri, is_small, map_uri
from pocketvit.report.templating import page_environment
from pocketvit.terminal import printable

HOST = "127.0.0.1"
SHIPPED = "cifar10"
"""The name of the weights that come with the package."""
MOST_BYTES = 32 * 2**20
"""Of an uploaded file; its pixels are bounded by `pocketvit.data.pixels`."""
MOST_DRAWN = 2**20
"""Letters of a drawing, a PNG in base64: that of 280 × 280 pixels of noise has 420,000."""
PNG = "data:image/png;base64,"
AT_ONCE = 16
"""Images that may wait for their turn."""

CANVAS = """
<canvas width="280" height="280" aria-label="A canvas to draw on"></canvas>
<p><label>Pen <input type="color" value="#ffffff"></label> <button type="button">Clear</button></p>
"""
CANVAS_CSS = """
canvas { display: block; width: 100%; max-width: 280px; aspect-ratio: 1; background: #000; }
canvas { touch-action: none; cursor: crosshair; }
p { display: flex; gap: 16px; align-items: center; margin: 8px 0 0; }
button { padding: 2px 12px; border: 1px solid currentColor; border-radius: 4px; }
"""
CANVAS_JS = """
const canvas = element.querySelector("canvas"), pen = canvas.getContext("2d");
const clear = () => { pen.fillStyle = "#000"; pen.fillRect(0, 0, 280, 280); };
const at = (event) => {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) * 280 / box.width, (event.clientY - box.top) * 280 / box.height];
};
let drawing = false;
clear();
canvas.addEventListener("pointerdown", (event) => {
  drawing = true;
  canvas.setPointerCapture(event.pointerId);
  pen.strokeStyle = element.querySelector("input").value;
  pen.lineWidth = 24;
  pen.lineCap = pen.lineJoin = "round";
  pen.beginPath();
  pen.moveTo(...at(event));
});
canvas.addEventListener("pointermove", (event) => { if (drawing) { pen.lineTo(...at(event)); pen.stroke(); } });
canvas.addEventListener("pointerup", () => {
  drawing = false;
  props.value = canvas.toDataURL("image/png");
  trigger("submit");
});
element.querySelector("button").addEventListener("click", clear);
"""


class Demo:
    """A trained model that answers on one image at a time.

    Args:
        run: run folder, model.safetensors or the name of a shipped model; None for the weights that come with the package.
        device: as `train.device`.
        allow_code: agree to run the user-defined code that the model needs.
    Raises:
        InputError: there is no such model, or it has attention by user-defined code.
    """

    def __init__(self, run: str | Path | None = None, *, device: str = "auto", allow_code: bool = False) -> None:
        found = find_run(SHIPPED if run is None else run)
        self.name = found.resolve().name
        try:
            self.trained = load_model(found, choose_device(device), allow_code=allow_code)
        except InputError as error:
            if run is not None:
                raise
            raise InputError("no weights come with this version; give a run: pocketvit demo runs/NAME") from error
        config = found / "config.yaml"  # absent if the model is a single file
        self.how = load_config(config, allow_code=True).data if config.exists() else DataConfig()
        self.template = page_environment().get_template("demo.html.j2")

    def of_file(self, path: str | None) -> str:
        """The answer on an uploaded file."""
        if path is None:
            return ""
        return self.answer(Path(path), Path(path).name)

    def of_drawing(self, uri: str | None) -> str:
        """The answer on a drawing, a data URI of a PNG."""
        uri = str(uri or "")
        try:
            if not uri.startswith(PNG) or len(uri) > MOST_DRAWN:
                raise ValueError
            content = base64.b64decode(uri.removeprefix(PNG), validate=True)
        except (binascii.Error, ValueError):
            return self.template.render(error="this is not a drawing of the page's canvas")
        return self.answer(content, "drawing")

    def answer(self, source: Path | bytes, name: str) -> str:
        """The answer on an image file as HTML: what the model sees, its probabilities, and a map for each layer and token."""
        try:
            image = resize(decode(source, name, config=self.how), self.trained.model.image_size, self.how)
            found = self.trained.attention_maps(image[None])
        except InputError as error:
            return self.template.render(error=str(error))
        names, shares = self.trained.class_names, found.logits.softmax(dim=1)[0].tolist()
        maps = found.on_patches(found.weights[:, 0].mean(dim=1))  # (L, T, rows, columns)
        return self.template.render(
            error=None,
            name=name,
            image=image_uri(image),
            aspect=f"{image.shape[1]} / {image.shape[0]}",
            pixelated=is_small(image),
            classes=sorted(zip(names, shares, strict=True), key=lambda item: -item[1]),
            tokens=self._tokens(maps),
            layers=[[map_uri(one.numpy()) for one in layer] for layer in maps],
        )

    def _tokens(self, maps: torch.Tensor) -> list[str]:
        """What the columns of maps (L, T, rows, columns) are of."""
        if not self.trained.model.tokens.num_cls:
            return ["mean of the patches"]
        if self.trained.model.config.pool == "cls_per_class":
            return list(self.trained.class_names)
        return ["CLS"] if maps.shape[1] == 1 else [f"CLS {k}" for k in range(1, maps.shape[1] + 1)]

    def page(self) -> Any:
        """The page, as Gradio's blocks."""
        gr = _gradio()
        with gr.Blocks(title=f"{self.name} · PocketViT", analytics_enabled=False) as page:
            gr.Markdown(f"# {_plain(self.name)}\nWhat the model answers on an image, and where it looks.")
            with gr.Row():
                with gr.Column(scale=1, min_width=280):
                    with gr.Tab("Drop an image"):
                        file = gr.File(
                            label="An image, at most 32 MB", file_count="single", type="filepath", height=160
                        )
                    with gr.Tab("Draw one"):
                        drawing = gr.HTML(html_template=CANVAS, css_template=CANVAS_CSS, js_on_load=CANVAS_JS)
                with gr.Column(scale=2, min_width=280):
                    answer = gr.HTML(elem_id="answer")
            once = {"outputs": answer, "api_visibility": "private", "concurrency_limit": 1, "concurrency_id": "model"}
            file.change(self.of_file, file, **once)
            drawing.submit(self.of_drawing, drawing, **once)
        return page.queue(max_size=AT_ONCE)


def serve(demo: Demo, port: int | None = None, *, block: bool = True) -> Any:
    """Serve the page on this machine until Ctrl-C.

    Args:
        port: by default the first free one from 7860.
        block: wait; otherwise the page is returned, and `page.close()` ends it.
    Raises:
        InputError: the port is taken.
    """
    gr = _gradio()
    uploads = tempfile.TemporaryDirectory(prefix="pocketvit-demo-")  # gone when the program ends
    os.environ["GRADIO_TEMP_DIR"] = uploads.name
    page = demo.page()
    page.uploads = uploads
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # others come from Google
    try:
        page.launch(
            server_name=HOST,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=MOST_BYTES,
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            enable_monitoring=False,
            mcp_server=False,
            pwa=False,
            theme=gr.themes.Base(primary_hue="teal", **fonts),
        )
    except OSError as error:
        raise InputError(f"--port {port}: it is taken; choose another one") from error
    print(f"the demo of {printable(demo.name)} is at {page.local_url}; Ctrl-C ends it", flush=True)
    if block:
        page.block_thread()
    return page


def _gradio() -> Any:
    """Gradio, which tells nobody that it is used."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when it is imported
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise InputError("the demo needs Gradio: pip install 'pocketvit[demo]'") from error
    return gradio


def _plain(text: str) -> str:
    """Text as it is in Markdown and HTML."""
    return "".join(letter if letter.isalnum() else f"&#{ord(letter)};" for letter in text)
