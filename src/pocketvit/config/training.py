"""The sections `optim`, `schedule` and `train`: the update of the weights, how long it goes on, and on what machine."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pocketvit.config.checks import Bounds, Count, Fraction, Natural, NotNegative, Positive, check_types
from pocketvit.errors import InputError
from pocketvit.usercode import Code


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The loss and the update of the weights."""

    name: Literal["adamw", "lion", "muon"] | Code = "adamw"
    """Optimizer; muon takes the matrices of the blocks, and AdamW the rest. Or FILE.py:NAME, a class of your own."""
    lr: Positive = 1e-3
    """Peak learning rate; with muon, of its AdamW part."""
    weight_decay: NotNegative = 0.05
    """Decoupled weight decay."""
    decay: Literal["all", "matrices"] = "all"
    """What decays: all parameters, as in the paper, or only those that are matrices inside a layer."""
    betas: tuple[Fraction, Fraction] | None = None
    """Decay rates of the running moments; by default the optimizer's own: AdamW 0.9 0.999, Lion 0.9 0.99."""
    muon_lr: Positive = 0.02
    """Peak learning rate of Muon."""
    muon_momentum: Fraction = 0.95
    """Decay rate of Muon's running moment."""
    ema_decay: Fraction = 0.0
    """Average the weights over about 1 / (1 − this) steps and evaluate the average; 0 does not."""
    label_smoothing: Fraction = 0.1
    """Probability spread evenly over all classes in the target; 0 is plain cross-entropy."""

    def __post_init__(self) -> None:
        check_types("optim", self)


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How long to train, and the learning rate over the steps."""

    name: Literal["cosine", "linear", "wsd"] | Code = "cosine"
    """Shape after the warm-up: half a cosine, a straight line, constant and then a straight line; or FILE.py:NAME."""
    passes: Count = 300
    """Passes over the training images; the paper's 100 epochs are 300 of them."""
    warmup_passes: Natural = 30
    """Passes of linear warm-up."""
    warmup_lr: NotNegative = 1e-6
    """Learning rate at the first step."""
    final_lr: NotNegative = 1e-6
    """Learning rate that the schedule ends at."""
    decay_frac: Annotated[float, Bounds(0, 1, open_left=True)] = 0.2
    """Fraction of the run in which wsd falls."""

    def __post_init__(self) -> None:
        check_types("schedule", self)
        if self.warmup_passes >= self.passes:
            raise InputError(
                f"schedule.warmup_passes={self.warmup_passes} must be less than schedule.passes={self.passes}"
            )
        if self.name == "wsd" and self.warmup_passes + self.decay_frac * self.passes > self.passes:
            raise InputError(
                f"schedule.decay_frac={self.decay_frac} and schedule.warmup_passes={self.warmup_passes} do not fit in "
                f"schedule.passes={self.passes}"
            )


Device = Literal["auto", "cuda", "mps", "cpu"]
"""Where to compute."""

Kernels = Literal["auto", "persistent", "fused", "reference"]
"""Which implementation runs: the best that is supported, the one named or an error, plain PyTorch."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The machine side of a run."""

    device: Device = "auto"
    """auto takes CUDA, else Apple's MPS, else the CPU."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """auto: bf16 autocast on CUDA, fp32 elsewhere."""
    compile: bool | None = None
    """torch.compile; by default on CUDA only."""
    cuda_graph: bool = True
    """Capture the whole step in a CUDA graph, where there is CUDA."""
    kernels: Kernels = "auto"
    """The blocks' kernels: the fastest supported, one of the two kinds or an error, or plain PyTorch only."""
    deterministic: bool = False
    """Only operations of PyTorch, cuBLAS and cuDNN that give the same bits every time on the same GPUs; slower."""
    eval_every_passes: Count = 15
    """Evaluate every so many passes; the paper's five epochs are 15."""
    checkpoint_every_passes: Natural = 10
    """Save a checkpoint every so many passes, and at the end; 0 saves only then and when stopped."""

    def __post_init__(self) -> None:
        check_types("train", self)
