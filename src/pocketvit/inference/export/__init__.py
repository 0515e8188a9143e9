"""A trained model for other programs."""

from typing import Literal

Format = Literal["onnx", "torchscript", "timm", "hf", "safetensors"]
"""A file of ONNX or of TorchScript; the files of timm's or of transformers' vision transformer; or our own."""
