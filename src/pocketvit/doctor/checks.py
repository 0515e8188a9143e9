"""What can be checked without training: the software, the data, the untrained model, its gradients.

Shapes: N images, K classes.
"""

import re
from dataclasses import dataclass, replace
from math import isfinite, log
from pathlib import Path
from shlex import quote
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pocketvit.config import DataConfig, RunConfig, code_of
from pocketvit.config.checks import FEW, describe_size
from pocketvit.data import Split, Splits
from pocketvit.data.check import check
from pocketvit.data.dataset import class_counts
from pocketvit.device import compute_dtype, device_name
from pocketvit.inference.logits import image_losses, predict_logits
from pocketvit.optim.build import named_parameters
from pocketvit.randomness import Stream, permutation
from pocketvit.runs.provenance import versions
from pocketvit.training.trainer import Trainer

DRIVER = Path("/proc/driver/nvidia/version")
MEASURED = 256  # images whose loss is measured
TOO_HIGH = 0.5  # nats of the first loss above that of equal probabilities


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    check: str
    """What was looked at, in a word or two."""
    state: Literal["ok", "warn", "FAIL"]
    found: str
    """What was seen, with the figures."""
    advice: str = ""
    """What to do about it."""

    def text(self) -> str:
        """As lines to print."""
        lines = [f"{self.state:<5} {self.check:<14} {self.found}"]
        return "\n".join([*lines, *([f"{'':<20} -> {self.advice}"] if self.advice else [])])


def software(device: torch.device) -> Finding:
    """The versions, and whether a GPU is used if there is one."""
    names = {"pocketvit": "PocketViT", "python": "Python", "torch": "PyTorch", "triton": "Triton", "numpy": "NumPy"}
    known = versions()
    found = ", ".join(f"{name} {known.get(key, 'not installed')}" for key, name in names.items())
    driver = re.search(r"\b(\d{3,}\.[\d.]+)", DRIVER.read_text()) if DRIVER.exists() else None
    found += f"; on {device_name(device)}"
    if device.type == "cuda":
        total = torch.cuda.mem_get_info(device)[1] / 2**30
        about = [f"{total:.0f} GiB", f"CUDA {torch.version.cuda}", *([f"driver {driver[1]}"] if driver else [])]
        return Finding("software", "ok", f"{found} ({', '.join(about)})")
    if driver and not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        return Finding(
            "software", "warn", f"{found}; NVIDIA driver {driver[1]} is here, but this PyTorch ({built}) finds no GPU",
            "install a PyTorch for a CUDA version that this driver has (https://pytorch.org/get-started); see nvidia-smi",
        )  # fmt: skip
    return Finding("software", "ok", found)


def kernels(trainer: Trainer) -> Finding:
    """What computes the blocks."""
    if trainer.device.type != "cuda":
        return Finding("kernels", "ok", "plain PyTorch; the fused kernels need an NVIDIA GPU")
    dtype = compute_dtype(trainer.config.train.precision, trainer.device)
    chosen = trainer.model.block_kernels(trainer.device, dtype)
    if chosen.name == "reference":
        advice = "it trains, but slower; docs/fast.md lists what the fused kernels support"
        return Finding("kernels", "warn", f"plain PyTorch: {chosen.reason}", advice)
    return Finding("kernels", "ok", f"{chosen.name} kernels run the blocks")


def data(config: DataConfig, splits: Splits) -> Finding:
    """What the data contain, and whether they can teach anything.

    Raises:
        InputError: they cannot be read.
    """
    report = check(config)
    train, names = splits.train, splits.class_names
    found = f"{len(train):,} training and {len(splits.test):,} test images of {describe_size(train.image_size)} in "
    found += f"{len(names)} classes"
    counts = class_counts(train.labels, len(names))
    pixels = len(np.unique(replace(train, labels=np.zeros_like(train.labels)).digests))
    if pixels == 1:
        return Finding(
            "data", "FAIL", f"{found}; all training images are the same", "look at the files and how they are read"
        )
    absent = [names[k] for k in np.flatnonzero(counts == 0)]
    warnings = [f"no training image of {', '.join(absent[:FEW])}"] if absent else []
    warnings += [f"only {pixels:,} of the training images differ"] if pixels < len(train) / 2 else []
    warnings += dict.fromkeys([*splits.cautions, *(note for note in report.notes if note not in splits.notes)])
    found = "; ".join([found, *warnings, *(note for note in splits.notes if note not in warnings)])
    if warnings:
        return Finding("data", "warn", found, f"pocketvit data check {quote(config.source)} tells more")
    return Finding("data", "ok", found)


def logits_of(trainer: Trainer, split: Split) -> tuple[Tensor, np.ndarray]:
    """The model's logits (N, K) on some of a split's images, clean, and their labels, (N,) or (N, K)."""
    rows = np.sort(permutation(trainer.config.seed, Stream.SAMPLE, 0, len(split))[:MEASURED])
    logits = predict_logits(trainer.model, split.images[rows], trainer.mean, trainer.std)
    return logits, split.labels[rows]


def constant_logits(trainer: Trainer) -> Tensor:
    """The logits (K,) of one that sees no image: how frequent the classes are in training, smoothed as the labels are."""
    labels, config = torch.from_numpy(np.array(trainer.splits.train.labels)), trainer.config
    count, smoothing = len(trainer.splits.class_names), config.optim.label_smoothing
    if labels.ndim == 2:
        return labels.double().mean(dim=0).clamp(1e-3, 1 - 1e-3).logit().float()
    share = labels.bincount(minlength=count) / len(labels)
    if config.data.balance != "none":
        share = torch.full_like(share, 1 / count)
    return (share * (1 - smoothing) + smoothing / count).clamp(min=1e-6).log()


def first_loss(trainer: Trainer) -> Finding:
    """Whether the untrained model holds all classes to be about as probable."""
    split, num_classes = trainer.splits.train, len(trainer.splits.class_names)
    loss = float(image_losses(*logits_of(trainer, split)).mean())
    even, name = (log(2), "ln 2") if split.multilabel else (log(num_classes), f"ln {num_classes}")
    found = f"{loss:.2f} before training; equal probabilities give {name} = {even:.2f}"
    if not isfinite(loss):
        return Finding(
            "first loss", "FAIL", found, f"an untrained model gives no numbers; look at {_suspects(trainer.config)}"
        )
    if trainer.config.init_from is not None:
        return Finding("first loss", "ok", f"{found}; this model starts trained (init_from)")
    if loss > even + TOO_HIGH:
        advice = f"the untrained model is sure of wrong answers; scale down the outputs of {_suspects(trainer.config)}"
        return Finding("first loss", "warn", found, advice)
    return Finding("first loss", "ok", found)


def _suspects(config: RunConfig) -> str:
    """What to look at if the model is at fault: the user's own code, if there is some."""
    return " and ".join(map(str, code_of(config.model).values())) or str(config.init_from or "the configuration")


KEY_BIAS = re.compile(r"\.k(\.1)?\.bias$")  # adds the same to all scores of a softmax, so its gradient is 0
BATCHES = 2  # a parameter that stochastic depth leaves out of one batch is not left out of two


def gradients(trainer: Trainer) -> Finding:
    """Whether each trained parameter gets a gradient that is a number."""
    trainer.model.train()
    step = trainer.step
    plan, count = trainer.chunks.plan(0), min(BATCHES, trainer.loader.chunk_steps)
    step.set_chunk(trainer.loader.load(plan, 0, count))
    for position in range(count):
        step.position.fill_(position)
        step.backward()
    named = list(named_parameters(trainer.model, trainer.objective.layers))
    none = [name for name, p in named if p.grad is None or not (p.grad.any() or KEY_BIAS.search(name))]
    broken = [name for name, p in named if p.grad is not None and not p.grad.isfinite().all()]
    for _, parameter in named:
        parameter.grad = None
    step.position.zero_()
    suspects = _suspects(trainer.config)
    if broken:
        advice = f"look at {suspects} for a division by 0, a logarithm or root of 0, or an overflow"
        return Finding("gradients", "FAIL", f"NaN or infinity in {_few(broken, len(named))}", advice)
    if none:
        advice = f"they would never train; look at {suspects} for .detach(), torch.no_grad(), .item() or layers that are not used"
        return Finding("gradients", "FAIL", f"none reaches {_few(none, len(named))}", advice)
    frozen = sum(not p.requires_grad for p in trainer.model.parameters())
    more = f"; {frozen} are frozen (train.freeze)" if frozen else ""
    return Finding("gradients", "ok", f"reach all {len(named)} trained parameters{more}")


def _few(names: list[str], total: int) -> str:
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return f"{len(names)} of {total} parameters: {', '.join(names[:FEW])}{more}"
