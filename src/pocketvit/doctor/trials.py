"""What a few hundred training steps say: about the learning rate, the model, the data, and the time that a run takes."""

import numpy as np

from pocketvit.config import RunConfig
from pocketvit.config.objective import WITHOUT_LABELS
from pocketvit.device import peak_memory_gib
from pocketvit.doctor.checks import Finding, constant_logits, logits_of
from pocketvit.doctor.lr_range import RangeTest, range_factors
from pocketvit.doctor.trial import DIFFERENT, Trial
from pocketvit.inference.logits import image_losses
from pocketvit.report import text

HIGH, LOW = 2.0, 1 / 50
"""A rate so many times the one with the least loss is told to be high, or low."""
TOO_HIGH = 6.5
"""So many times that one, it fails. The least loss is at about the same rate for every seed; where all is lost is not."""
TRY = 1 / 10, 1 / 2
"""The rates to try, over the one with the least loss; a tenth is fastai's rule, and both are rules of thumb."""
LEARNED = 0.1  # share of the first loss, beyond what smoothing leaves, below which a batch is known by heart
SIGNIFICANT = 3.0  # standard errors by which a loss must be lower
WARM_UP_FRAC = 0.3
ENOUGH = 200  # steps of a trial that must show something; after fewer, there is only a warning
A_DAY = 24 * 3600  # seconds
FEW_STEPS, ROSE = 5, 1.05  # the mean loss of the last ones over that of the first ones, above which it has risen


def range_test(trial: Trial) -> tuple[Finding, RangeTest | None]:
    """Train at rising learning rates, and say what that means for `optim.lr`."""
    if trial.trainer.config.objective.name == "dino":
        why = "left out: the loss of dino is against a moving teacher, so its fall says little"
        return Finding("optim.lr", "ok", why), None
    config = trial.trainer.config
    factors = range_factors(trial.steps(0.45))
    found = trial.run(factors)
    test = RangeTest(config.optim.lr * factors[: len(found)], found)
    return lr_finding(config.optim.lr, test), test


def lr_finding(lr: float, test: RangeTest) -> Finding:
    """What the range test says about a learning rate."""
    low, high = test.rates[0], test.rates[-1]
    ran = f"{len(test.rates)} steps from {low:.1g} to {high:.1g}"
    if test.lowest is None:
        advice = "the steps are too few, or nothing is learned: see the other checks"
        return Finding(
            "optim.lr", "warn", f"the loss never fell clearly in {ran}, so nothing is said about {lr:g}", advice
        )
    found = f"{lr:g}; in {ran} the loss was least at {test.lowest:.1g}"
    found += f", and all that was gained was lost at {test.limit:.1g}" if test.limit else ""
    try_ = f"try --optim.lr {TRY[0] * test.lowest:.1g} to {TRY[1] * test.lowest:.1g}"
    if lr > TOO_HIGH * test.lowest or (test.limit and lr >= test.limit):
        return Finding("optim.lr", "FAIL", found, f"it is too high, and training would probably diverge; {try_}")
    if lr > HIGH * test.lowest:
        return Finding("optim.lr", "warn", found, f"it may be too high; if the loss does not fall, {try_}")
    if lr < LOW * test.lowest:
        return Finding("optim.lr", "warn", found, f"it may be low, which only takes longer; {try_}")
    return Finding("optim.lr", "ok", found)


def usable_factor(finding: Finding, test: RangeTest | None, lr: float) -> float:
    """The learning rate over the peak that the further trials use: not one that is too high, whose fault they would see."""
    return TRY[1] * test.lowest / lr if test and test.lowest and finding.state == "FAIL" else 1.0


def by_heart(trial: Trial, factor: float) -> Finding:
    """Whether the model can learn one batch by heart, which any correct one can."""
    config = trial.trainer.config
    if not _learns_labels(config):
        why = f"objective.name={config.objective.name}" if config.train.freeze == "none" else "train.freeze"
        return Finding("one batch", "ok", f"left out: with {why}, only the classifier learns labels")
    chunk, floor = trial.one_batch()
    most = trial.steps(0.25)
    found = trial.by_heart(chunk, factor, most, lambda loss, first: loss < floor + LEARNED * (first - floor))
    images = min(DIFFERENT, len(chunk.labels))
    told = f"{images} images in {len(found)} steps: loss {found[0]:.2f} to {found[-1]:.2f}, of which {floor:.2f} always stays"
    if found[-1] < floor + LEARNED * (found[0] - floor):
        return Finding("one batch", "ok", f"learned by heart, {told}")
    advice = (
        "the model cannot tell these images apart, or is not reached: try the built-in block, attention and optimizer"
    )
    if most < min(ENOUGH, trial.budget.most):
        return Finding(
            "one batch", "warn", f"not learned by heart, {told}", f"too few steps on this machine, or {advice}"
        )
    return Finding("one batch", "FAIL", f"not learned by heart, {told}", advice)


def _learns_labels(config: RunConfig) -> bool:
    """Whether the whole model learns labels."""
    return config.objective.name not in WITHOUT_LABELS and config.train.freeze == "none"


def first_steps(trial: Trial, factor: float) -> Finding:
    """Whether the first steps of the run teach something about images that were held out."""
    trainer = trial.trainer
    config, splits = trainer.config, trainer.splits
    steps = trial.steps(0.3)
    found = trial.run(factor * np.minimum(1, np.arange(1, steps + 1) / (WARM_UP_FRAC * steps)))
    split, name = (splits.test, "test") if splits.val is None else (splits.val, "validation")
    logits, labels = logits_of(trainer, split)
    own, blind = image_losses(logits, labels), image_losses(constant_logits(trainer).expand_as(logits), labels)
    gained = blind - own  # (N,)
    at = "" if factor == 1 else f" at a learning rate of {factor * config.optim.lr:.1g}"
    told = f"after {len(found)} steps{at}, the loss on {len(own)} {name} images is {own.mean():.2f}; "
    told += f"knowing only how frequent the classes are, {blind.mean():.2f}"
    if gained.mean() > SIGNIFICANT * gained.std() / len(own) ** 0.5:
        return Finding("learning", "ok", told)
    if len(found) < steps or found[-FEW_STEPS:].mean() > ROSE * found[:FEW_STEPS].mean():
        return Finding("learning", "FAIL", f"{told}; the training loss rose", "lower --optim.lr, or warm up longer")
    advice = (
        "are the labels those of these images, and does the augmentation leave anything to see? Look at some images"
    )
    if not _learns_labels(config) or steps < min(ENOUGH, trial.budget.most):
        more = f"too few steps to tell; if a longer run does not learn either: {advice}"
        return Finding("learning", "warn", told, more)
    return Finding("learning", "FAIL", told, advice)


def cost(trial: Trial, config: RunConfig, held: int) -> Finding:
    """Images per second, memory, and the time of the whole run.

    Args:
        config: of the run, as it would be started.
        held: bytes on the GPU that were not the run's, from `watch_memory`.
    """
    trainer = trial.trainer
    gib = peak_memory_gib(trainer.device, held)
    memory = f"; {gib:.1f} GiB of GPU memory" if gib is not None else ""
    if not trial.seconds:
        return Finding("cost", "ok", f"not measured{memory}")
    images_per_s = trial.steps_timed * config.batch_size / trial.seconds
    passes, what = config.schedule.passes, f"the run's {config.schedule.passes:,} passes take"
    if config.schedule.time_budget is not None:
        passes, what = 1, "a pass takes"
    images = passes * trainer.loader.steps_per_pass * config.batch_size
    seconds = images / images_per_s
    found = f"{images_per_s:,.0f} images/s{memory}; {what} about {text.duration(seconds)}, without evaluations"
    found += ", less with the smaller images of schedule.sides" if config.schedule.sides else ""
    if seconds > A_DAY and trainer.device.type == "cpu":
        return Finding("cost", "warn", found, "use a GPU, fewer --schedule.passes, or a smaller --model.width")
    return Finding("cost", "ok", found)
