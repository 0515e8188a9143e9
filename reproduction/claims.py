"""The paper's claims, each with the rule and the figures that decide it.

Claims that our runs leave open, or that were not measured, cannot be told. Accuracies are those after the last step,
because the best of several evaluations is chosen on the test set.
"""

from dataclasses import dataclass

from reproduction import accuracy, cost, rules
from reproduction.judgement import Judge
from reproduction.rules import Rule

TABLE2, TABLE3, FIG6 = "paper-table2", "paper-table3", "paper-fig6"
ADAMW, LION = ("adamw", "adamw-lr1e-3"), ("lion", "lion-lr1e-3", "lion-lr1e-4")
MLA = ("mla-q", "mla-k", "mla-qk", "mla-kv", "mla-qkv")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One testable statement of the paper."""

    words: str
    where: str
    decided_by: str
    """Our figure that decides it."""
    rule: Rule
    judge: Judge
    """Decides it by that rule."""


def _effect(words: str, where: str, study: str, row: str, reference: str, claimed: float) -> Claim:
    """About a direction."""
    judge = accuracy.effect(study, row, reference, claimed)
    return _accuracy(words, where, row, reference, rules.EFFECT, judge)


def _noticeable(words: str, where: str, study: str, row: str, reference: str, claimed: float) -> Claim:
    judge = accuracy.effect(study, row, reference, claimed, least=rules.MINIMAL)
    return _accuracy(words, where, row, reference, rules.NOTICEABLE, judge)


def _sized(words: str, where: str, study: str, row: str, reference: str, claimed: float) -> Claim:
    judge = accuracy.effect(study, row, reference, claimed, least=abs(claimed) / 2, most=2 * abs(claimed))
    return _accuracy(words, where, row, reference, rules.SIZE, judge)


def _harmless(words: str, where: str, study: str, row: str, reference: str) -> Claim:
    return _accuracy(words, where, row, reference, rules.HARMLESS, accuracy.harmless(study, row, reference))


def _accuracy(words: str, where: str, row: str, reference: str, rule: Rule, judge: Judge) -> Claim:
    return Claim(words=words, where=where, decided_by=f"accuracy, `{row}` − `{reference}`", rule=rule, judge=judge)


CLAIMS = (
    Claim(
        words="The baseline reaches 93.65 %.",
        where="Table 2",
        decided_by="best evaluation of `baseline`",
        rule=rules.REACHES,
        judge=accuracy.reaches(TABLE2, "baseline"),
    ),
    _noticeable(
        "Removing AutoAugment costs accuracy noticeably (92.14).", "section 2.2", TABLE2, "no-aa", "baseline", -0.0151
    ),
    _effect("Disabling CutMix leads to a decline (92.77).", "section 2.2", TABLE2, "no-cutmix", "baseline", -0.0088),
    _harmless("MixUp is not beneficial (93.68 without it).", "section 2.2", TABLE2, "no-mixup", "baseline"),
    _effect("Sinusoidal positions are slightly worse (93.43).", "section 2.2", TABLE2, "sincos", "baseline", -0.0022),
    Claim(
        words="Whitening initialization, meant to speed training up, does not translate well to ViTs (93.28).",
        where="section 2.2",
        decided_by="accuracy, and images to 90 %, `whitening` − `baseline`",
        rule=rules.NO_GAIN,
        judge=accuracy.no_gain(
            accuracy.effect(TABLE2, "whitening", "baseline", -0.0037), cost.sooner(TABLE2, ["whitening"], ["baseline"])
        ),
    ),
    _noticeable(
        "Compressing q, k and v costs noticeably (91.8).", "section 2.3", TABLE2, "mla-qkv", "baseline", -0.0185
    ),
    _harmless("Compressing queries does not degrade performance.", "Introduction", TABLE2, "mla-q", "baseline"),
    Claim(
        words="Of all compressions, that of the queries costs least.",
        where="Table 2, caption",
        decided_by="accuracy, each other compression − `mla-q`",
        rule=rules.BEST,
        judge=accuracy.best_of(TABLE2, "mla-q", MLA[1:]),
    ),
    Claim(
        words="Low-rank compression has the potential to reduce activation memory.",
        where="sections 1.4, 2.3",
        decided_by="memory kept between forward and backward, each compression relative to `baseline`",
        rule=rules.SMALLER,
        judge=cost.keeps_less(TABLE2, MLA, "baseline"),
    ),
    Claim(
        words="Batches of 1024 reduce the training time (3582 to 1371 s).",
        where="section 2.2",
        decided_by="time per image on several GPUs, batches of 1024 relative to batches of 256",
        rule=rules.QUICKER,
        judge=cost.larger_batches(TABLE2, "ba-bs1024", "ba"),
    ),
    _effect("Batches of 1024 diminish accuracy (93.44 to 92.09).", "Table 2", TABLE2, "ba-bs1024", "ba", -0.0135),
    Claim(
        words="Lion is more effective than AdamW (92.38 to 92.09).",
        where="section 2.2",
        decided_by="accuracy in Figure 6, Lion − AdamW, each at its best learning rate",
        rule=rules.BETTER,
        judge=accuracy.best_effect(FIG6, LION, ADAMW, 0.0029),
    ),
    Claim(
        words="Lion requires fewer iterations to find a good solution.",
        where="Figure 6",
        decided_by="images to 90 %, Lion and AdamW, each at its best learning rate",
        rule=rules.SOONER,
        judge=cost.sooner(FIG6, LION, ADAMW),
    ),
    Claim(
        words="Lion consumes more time per step.",
        where="Figure 6",
        decided_by="images/s of Lion relative to AdamW, each at its best learning rate",
        rule=rules.SLOWS,
        judge=cost.less(
            FIG6,
            LION,
            ADAMW,
            "images_per_s",
            rules.SLOWER,
            rules.SLOWER,
            "; ours are one fused kernel each, the paper's Lion is another implementation",
        ),  # fmt: skip
    ),
    _sized("Half the width costs 3.24 points (90.41).", "section 2.3", TABLE3, "width96", "width192", -0.0324),
    _sized("Two CLS tokens improve 90.41 to 93.95.", "Table 3", TABLE3, "width96-2cls", "width96", 0.0354),
    _harmless(
        "Narrower patch tokens do no harm if the CLS tokens together keep the width.",
        "Introduction",
        TABLE3,
        "width96-2cls",
        "width192",
    ),
    Claim(
        words="The backward pass takes most of the training time (79.3 of 120.7 ms).",
        where="Figure 4",
        decided_by="profile of a training step",
        rule=rules.BACKWARD,
        judge=cost.mostly_backward,
    ),
    Claim(
        words="One training step takes 120.7 ms.",
        where="Figure 4",
        decided_by="the paper's own Table 2",
        rule=rules.STEP_TIME,
        judge=cost.step_time,
    ),
    Claim(
        words="Beyond batches of 128, speed hardly grows (9,449 to 10,607 images/s).",
        where="Table 1",
        decided_by="images/s of the forward pass, batches of 128 and 1024",
        rule=rules.LEVELS_OFF,
        judge=cost.levels_off,
    ),
)
"""In the order of the paper's tables."""

EARLIER = (
    "reproduced", "reproduced", "cannot be told", "reproduced", "cannot be told", "cannot be told", "not reproduced",
    "reproduced", "cannot be told", "cannot be told", "not reproduced", "reproduced", "cannot be told",
    "not reproduced", "not reproduced", "not reproduced", "reproduced", "not reproduced", "not reproduced",
    "reproduced", "not reproduced", "not reproduced",
)  # fmt: skip
"""The verdicts on 30 November 2026, by the rules and statistics until then. Whitening was two claims."""
BEFORE_MORE_RUNS = (
    "reproduced", "reproduced", "cannot be told", "reproduced", "cannot be told", "cannot be told", "reproduced",
    "cannot be told", "cannot be told", "cannot be told", "reproduced", "cannot be told", "not reproduced",
    "cannot be told", "not reproduced", "reproduced", "not reproduced", "not reproduced", "reproduced",
    "not reproduced", "not reproduced",
)  # fmt: skip
"""The verdicts by the present rules on the same runs, before those on H200s were made."""
MERGED = 6
"""The claim that was two, then numbered 6 and 7; those behind it have moved up by one."""
