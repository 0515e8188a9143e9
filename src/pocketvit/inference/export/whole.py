"""Formats that hold the whole computation, from uint8 pixels to probabilities: ONNX and TorchScript. Every model fits them.

Shapes: B batch, H W pixels, C channels, K classes.
"""

import io
import json
import logging
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from pocketvit.augment.augment import normalise
from pocketvit.config import code_of
from pocketvit.data.pixels import one_line
from pocketvit.errors import InputError
from pocketvit.inference.trained_model import TrainedModel


class Whole(nn.Module):
    """A trained model with what comes before and after it, on the CPU and in plain PyTorch."""

    mean: Tensor
    std: Tensor

    def __init__(self, trained: TrainedModel) -> None:
        super().__init__()
        self.model = deepcopy(trained.model).cpu().float().eval()
        self.model.use_kernels("reference")
        self.multilabel = trained.multilabel
        self.register_buffer("mean", torch.tensor(trained.mean))
        self.register_buffer("std", torch.tensor(trained.std))
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images uint8 (B, H, W, C) -> logits and probabilities, (B, K) each."""
        logits = self.model(normalise(images, self.mean, self.std))
        return logits, logits.sigmoid() if self.multilabel else logits.softmax(dim=1)

    def example(self) -> Tensor:
        """Two black images: one would be taken for all batches having one."""
        return torch.zeros(2, *self.model.image_size, 3, dtype=torch.uint8)


def onnx(trained: TrainedModel, about: dict[str, Any]) -> dict[str, bytes]:
    """The file of ONNX's format, for any batch size, with `about` as JSON by key in its metadata.

    Raises:
        InputError: a package is missing, or the model has user-defined code that cannot be exported.
    """
    if missing := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]:
        raise InputError(f"--format onnx needs {' and '.join(missing)}: pip install 'pocketvit[export]'")
    whole = Whole(trained)
    with _quietly("ONNX", trained):
        program = torch.onnx.export(
            whole,
            (whole.example(),),
            dynamo=True,
            input_names=["images"],
            output_names=["logits", "probabilities"],
            dynamic_shapes={"images": {0: "batch"}},
            verbose=False,
        )
    assert program is not None  # None is for the older exporter
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # traces with the paths of this machine, a third of the file
    program.model.metadata_props.update({name: json.dumps(value) for name, value in about.items()})
    return {"model.onnx": program.model_proto.SerializeToString()}


def torchscript(trained: TrainedModel, about: dict[str, Any]) -> dict[str, bytes]:
    """The file of TorchScript's format, for any batch size, with `about` as about.json inside.

    Raises:
        InputError: the model has user-defined code that cannot be exported.
    """
    whole, stream = Whole(trained), io.BytesIO()
    with _quietly("TorchScript", trained):
        script = torch.jit.trace(whole, whole.example())
        torch.jit.save(script, stream, _extra_files={"about.json": json.dumps(about)})
    return {"model.pt": _without_traces(stream)}


def _without_traces(file: io.BytesIO) -> bytes:
    """A file of TorchScript's format without the parts for debuggers, which have the paths of this machine."""
    kept = io.BytesIO()
    with zipfile.ZipFile(file) as given, zipfile.ZipFile(kept, "w") as archive:
        for member in given.infolist():
            if not member.filename.endswith(".debug_pkl"):
                archive.writestr(member, given.read(member))
    return kept.getvalue()


@contextmanager
def _quietly(kind: str, trained: TrainedModel) -> Iterator[None]:
    """PyTorch's tracing without warnings, which are about its own code, and errors of users' code in one line."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(action="ignore"):
            yield
    except Exception as error:
        if own := code_of(trained.model.config):
            names = ", ".join(map(str, own.values()))
            raise InputError(
                f"{names} cannot be exported to {kind}: {one_line(error)}; use --format safetensors"
            ) from error
        raise
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
