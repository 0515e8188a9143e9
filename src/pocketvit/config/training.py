"""The sections `optim`, `schedule` and `train`: the optimizer, its schedule, and how the machine is used."""

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

from pocketvit.config.checks import Bounds, Count, Fraction, Natural, NotNegative, Positive, check_types
from pocketvit.errors import InputError
from pocketvit.usercode import Code


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimizer, the average of the weights, and label smoothing."""

    name: Literal["adamw", "adam", "sgd", "lion", "muon", "soap_muon"] | Code = "adamw"
    """Optimizer; muon and soap_muon update the blocks' matrices so, the rest by AdamW. Or FILE.py:NAME, your own class."""
    lr: Positive = 1e-3
    """Peak learning rate; with muon, that of its AdamW part."""
    layer_decay: Annotated[float, Bounds(0, 1, open_left=True)] = 1.0
    """For fine-tuning: each layer's learning rate is that of the layer above it times this; the classifier's is the whole."""
    weight_decay: NotNegative = 0.05
    """Decoupled weight decay; sgd and adam, as in PyTorch, add it to the gradient, where 1e-4 is usual."""
    decay: Literal["all", "matrices"] = "all"
    """What decays: all parameters, as in the paper, or only the matrices of layers."""
    cautious_decay: bool = False
    """Decay a weight only in steps whose update also makes it smaller, or that do not move it."""
    betas: tuple[Fraction, Fraction] | None = None
    """Decay rates of the running moments; by default AdamW and Adam 0.9 0.999, Lion 0.9 0.99."""
    momentum: Fraction = 0.9
    """Decay rate of SGD's running sum of gradients; 0 keeps none."""
    nesterov: bool = True
    """SGD with Nesterov's momentum: a step also takes the next decay of the sum into account."""
    grad_clip: Positive | None = None
    """Greatest L2 norm of the gradients of a step, all together; greater ones are scaled down to it. None leaves them."""
    muon_lr: Positive = 0.02
    """Peak learning rate of Muon."""
    muon_momentum: Fraction = 0.95
    """Decay rate of Muon's running moment."""
    soap_blocks: bool = False
    """With soap_muon, cut the longer side of each matrix into pieces as long as the shorter one: several times less work."""
    ema_decay: Fraction = 0.0
    """Evaluate a moving average of the weights over about 1 / (1 − this) steps; 0 turns it off."""
    ema_start: Fraction = 0.0
    """Fraction of the run after which the average begins; until then it is the current weights."""
    ema_share: Annotated[float, Bounds(0, 1, open_left=True)] = 1.0
    """Share of the average in the weights that are evaluated; the rest is the current weights."""
    label_smoothing: Fraction = 0.1
    """Probability spread evenly over all classes in the target; 0 is plain cross-entropy."""

    def __post_init__(self) -> None:
        check_types("optim", self)
        for name, off in (("ema_start", 0), ("ema_share", 1)):
            if getattr(self, name) != off and not self.ema_decay:
                raise InputError(f"optim.{name}={getattr(self, name)} has no effect with optim.ema_decay=0")
        if self.soap_blocks and self.name != "soap_muon":
            raise InputError(f"optim.soap_blocks=True has no effect with optim.name={self.name}; use soap_muon")
        if self.cautious_decay and isinstance(self.name, Code):
            raise InputError(f"optim.cautious_decay=True has no effect with optim.name={self.name}; decay there")
        if self.cautious_decay and self.decays_gradient:
            raise InputError(
                f"optim.cautious_decay=True needs decoupled weight decay, and optim.name={self.name} adds it to the gradient; "
                "use adamw"
            )

    @property
    def decays_gradient(self) -> bool:
        """Whether weight decay is part of the gradient, so that moments see it."""
        return self.name in ("sgd", "adam")


DURATION = re.compile(r"(?=.*[1-9])(\d+(?:\.\d+)?)([smh])", re.ASCII)  # greater than 0


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How long to train, and the learning rate over the steps."""

    name: Literal["cosine", "linear", "wsd", "constant"] | Code = "cosine"
    """Decay after the warm-up: cosine, linear, constant and then linear (wsd), or none (constant); or FILE.py:NAME, your own
    function."""
    passes: Count = 300
    """Passes over the training images; the paper's 100 epochs are 300 passes."""
    time_budget: str | None = None
    """Time for all steps and evaluations, such as 30s, 10m or 1.5h: the run begins by measuring how many passes fit into it."""
    sides: tuple[Count, ...] = ()
    """Shrink images to these sides in pixels at first, each for an equal part of the run; the last part keeps their size."""
    warmup_passes: Natural = 30
    """Passes of linear warm-up."""
    warmup_frac: Fraction | None = None
    """Fraction of the run for the warm-up, in place of warmup_passes; none is warmup_passes."""
    warmup_lr: NotNegative = 1e-6
    """Learning rate at the first step."""
    final_lr: NotNegative = 1e-6
    """Learning rate at the end; with constant, it stays at its peak."""
    decay_frac: Annotated[float, Bounds(0, 1, open_left=True)] = 0.2
    """Fraction of the run in which wsd decays."""
    extended: tuple[Natural, ...] = ()
    """Written by --resume RUN --schedule.passes N: the passes that the run had, and after which pass it got more; each time."""

    def __post_init__(self) -> None:
        if self.time_budget is not None and not DURATION.fullmatch(str(self.time_budget)):
            raise InputError(f"schedule.time_budget={self.time_budget!r}: must be a duration such as 30s, 10m or 1.5h")
        check_types("schedule", self)
        if self.time_budget is not None:  # what follows depends on the passes, which are not known yet
            return
        had, done = self.extended[::2], self.extended[1::2]
        rising = all(a < b for a, b in pairwise((0, *had, self.passes))) or not had
        if not rising or len(had) != len(done) or any(a > b for a, b in zip(done, had, strict=True)):
            raise InputError(
                f"schedule.extended={self.extended}: must be pairs of numbers of passes, before schedule.passes={self.passes}; "
                "use --resume RUN --schedule.passes N"
            )
        if len(self.sides) >= self.passes:
            raise InputError(f"schedule.sides={self.sides} need more than schedule.passes={self.passes}")
        if self.warmup_frac is None and self.warmup_passes >= self.passes:
            raise InputError(
                f"schedule.warmup_passes={self.warmup_passes} must be less than schedule.passes={self.passes}; set "
                "--schedule.warmup-frac 0.1, a warm-up of a tenth of any run"
            )
        if self.name == "wsd" and self.warmup_steps(1000) + self.decay_frac * self.passes * 1000 > self.passes * 1000:
            warmup = "warmup_passes" if self.warmup_frac is None else "warmup_frac"
            raise InputError(
                f"schedule.decay_frac={self.decay_frac} and schedule.{warmup}={getattr(self, warmup)} do not fit in "
                f"schedule.passes={self.passes}"
            )

    @property
    def budget_s(self) -> float | None:
        """The time budget in seconds, if there is one."""
        found = DURATION.fullmatch(self.time_budget or "")
        return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]] if found else None

    def side(self, pass_index: int) -> int | None:
        """The side in pixels of the images of a pass, counted from 0; None for their own."""
        part = pass_index * (len(self.sides) + 1) // self.passes
        return self.sides[part] if part < len(self.sides) else None

    def warmup_steps(self, steps_per_pass: int) -> int:
        """Steps of linear warm-up."""
        if self.warmup_frac is None:
            return self.warmup_passes * steps_per_pass
        return int(self.warmup_frac * self.passes * steps_per_pass)


Device = Literal["auto", "cuda", "mps", "cpu"]  # the device to compute on

Kernels = Literal["auto", "persistent", "fused", "reference"]
"""The implementation: the fastest that is supported; persistent or fused kernels, or an error; plain PyTorch."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How the machine is used, and how often a run is evaluated and saved."""

    device: Device = "auto"
    """auto: CUDA if available, else Apple's MPS, else the CPU."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """auto: bf16 autocast on CUDA, fp32 elsewhere."""
    compile: bool | None = None
    """Use torch.compile; by default only on CUDA."""
    cuda_graph: bool = True
    """On CUDA, capture the whole step in a CUDA graph."""
    micro_batch: Count | None = None
    """Images that a process computes at a time, to save memory: a step adds up their gradients. None is its whole share."""
    kernels: Kernels = "auto"
    """Kernels of the blocks. auto: the fastest that are supported; reference: plain PyTorch; the others: these or an error."""
    deterministic: bool = False
    """Use only operations of PyTorch, cuBLAS and cuDNN that give the same bits on the same GPUs; slower."""
    eval_every_passes: Count = 15
    """Passes between evaluations; the paper's five epochs are 15."""
    flip_average: bool = False
    """At the end, also test with the logits of each image and its mirror averaged: test_accuracy_tta in result.json."""
    freeze: Literal["none", "encoder"] = "none"
    """What keeps its initial weights: nothing, or all but the classifier, which learns on standardized tokens: a linear probe."""
    patience: Count | None = None
    """Stop after so many evaluations without a better accuracy (multilabel: mAP) on held-out images; keep the best weights."""
    checkpoint_every_passes: Natural = 10
    """Passes between checkpoints; 0 saves only at the end and when stopped."""

    def __post_init__(self) -> None:
        check_types("train", self)
