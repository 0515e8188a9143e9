"""The paper's published numbers, with their places in the paper and our corresponding rows.

Wu 2025, "Powerful Design of Small Vision Transformer on CIFAR10". Its accuracies are the best of 20 evaluations on the
test set in one run; its times are from one RTX 3090, or from four for the columns under DDP. Figure 6 has no readable
values.

Some details are only in its published code: a run is 300 passes, 58,500 steps of 256 images; without CutMix, half of the
batches use MixUp, and vice versa; and runs on several GPUs show every image three times in a row. How the baseline was
started is not recorded.
"""

from dataclasses import dataclass

STEPS = 58_500
"""Optimizer steps of the paper's 100 epochs at batch size 256."""


@dataclass(frozen=True, kw_only=True)
class PublishedRun:
    """One run of the paper."""

    name: str
    where: str
    study: str
    """The built-in study that repeats it."""
    row: str
    """Its row there."""
    accuracy: float
    """The best of 20 evaluations on the test set, a fraction."""
    train_s: float | None = None


def _table2(name: str, row: str, accuracy: float, train_s: float) -> PublishedRun:
    return PublishedRun(
        name=name, where=f"Table 2, {name}", study="paper-table2", row=row, accuracy=accuracy, train_s=train_s
    )


def _table3(name: str, row: str, accuracy: float) -> PublishedRun:
    return PublishedRun(name=name, where=f"Table 3, {name}", study="paper-table3", row=row, accuracy=accuracy)


RUNS = (
    _table2("Baseline", "baseline", 0.9365, 4658),
    _table2("Augmentation -aa", "no-aa", 0.9214, 4684),
    _table2("Augmentation -mixup", "no-mixup", 0.9368, 4656),
    _table2("Augmentation -cutmix", "no-cutmix", 0.9277, 4651),
    _table2("Patch sin", "sincos", 0.9343, 4687),
    _table2("Patch Witen", "whitening", 0.9328, 4676),
    _table2("MLA qkv", "mla-qkv", 0.9180, 4805),
    _table2("MLA kv", "mla-kv", 0.9243, 4756),
    _table2("MLA qk", "mla-qk", 0.9242, 4785),
    _table2("MLA q", "mla-q", 0.9332, 4716),
    _table2("MLA k", "mla-k", 0.9250, 4711),
    _table2("DDP bs256", "ba", 0.9344, 3582),
    _table2("DDP bs1024", "ba-bs1024", 0.9209, 1371),
    # The column has no head; section 2.2, "Optimizer", gives its 92.38 % to Lion.
    _table2("DDP bs1024, Lion", "ba-bs1024-lion", 0.9238, 1545),
    _table3("dim 192, 1 CLS", "width192", 0.9365),
    _table3("dim 96, 1 CLS", "width96", 0.9041),
    _table3("dim 96, 2 CLS", "width96-2cls", 0.9395),
)

SPEED = {
    32: (3162.09, 0.31),
    64: (6521.61, 0.62),
    128: (9449.16, 1.25),
    256: (9721.13, 2.50),
    512: (10368.24, 5.00),
    1024: (10607.06, 9.98),
}
"""Table 1: images/s and memory in GB by batch size; the text says "forward time"; RTX 3090."""

STEP_MS = {"forward": 25.2, "backward": 79.3, "optimizer": 12.7}
"""Figure 4: the named parts of one training step, in milliseconds; RTX 3090, batch size 256."""
WHOLE_STEP_MS = 120.7
"""Figure 4: the whole step."""


def published(study: str, row: str) -> PublishedRun:
    """The paper's run that one of our rows repeats; KeyError if there is none."""
    return {(run.study, run.row): run for run in RUNS}[study, row]


def baseline_step_ms() -> float:
    """Milliseconds per training step by Table 2: the baseline's time divided by its steps."""
    return 1e3 * published("paper-table2", "baseline").train_s / STEPS
