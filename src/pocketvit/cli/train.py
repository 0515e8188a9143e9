"""`pocketvit train`: from a recipe or a saved configuration and dotted fields to a run."""

import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from shlex import quote

import tyro

from pocketvit.cli.parsing import check_flags, check_tracker, flag_of, parse
from pocketvit.config import RunConfig, flatten, load_config, override
from pocketvit.config.names import REPLACED
from pocketvit.errors import InputError
from pocketvit.files import path_of
from pocketvit.recipes import ADAPTED, NAMES, RECIPES, about, finetune, photos, recipe
from pocketvit.runs.balance import balance_lines
from pocketvit.runs.result import RunResult
from pocketvit.terminal import outliving_output, say

SHORT_FORMS = {"--data": "--data.source", "--resize": "--data.resize"}
"""Short flags of `train`; --seed, --out and --batch-size are fields."""

HELP = """\
Train a model.

RECIPE is {recipes}: by default photos if --data names a file or folder of your own, else digits.
finetune needs --init-from RUN.
The defaults below are those of the recipe.
--data SOURCE is short for --data.source, --resize N for --data.resize.
--config FILE.yaml starts from a saved configuration instead of a recipe.
--resume DIR resumes an unfinished run; with --schedule.passes N, an unfinished or finished one takes more passes.
--allow-code agrees to run the code that a configuration or a run names.
--track tensorboard|wandb|mlflow|trackio sends configuration, curves, result and report there.

{about}
"""


def train_command(arguments: list[str]) -> int:
    """`pocketvit train [RECIPE] [--FIELD VALUE ...] [--config FILE.yaml | --resume DIR] [--allow-code] [--track NAME]`."""
    started = time.perf_counter()
    tracker, arguments = _take(arguments, "--track")
    check_tracker(tracker)
    config = parse_train(arguments, ["--track"])
    if config.recipe in ADAPTED:
        side, fit, budget = config.data.resize, config.data.fit, config.schedule.time_budget
        size = f"images resized to {side} × {side} ({fit})" if side else "images of their own size"
        length = f"{config.schedule.passes} passes" if budget is None else f"passes for {budget}"
        print(f"recipe {config.recipe} on {config.data.source}: {size}, batches of {config.batch_size}, {length}")
    from pocketvit.training import Stopped, train
    from pocketvit.training.tracking import tracked

    with outliving_output():
        try:
            result = train(config, tracked(tracker) if tracker else None, started=started)
        except Stopped as stopped:
            say(stopped)
            return 128 + stopped.signum
        say(result_text(result))
        return 0


def parse_train(arguments: list[str], others: Collection[str] = ()) -> RunConfig:
    """The configuration that the arguments of `train` describe.

    Args:
        others: further flags of the caller, for the hint on a misspelled one.
    Raises:
        InputError: an unknown recipe or field, a wrong value, or more than one base.
    """
    rest = [_long_form(argument) for argument in arguments]
    named = rest.pop(0) if rest and not rest[0].startswith("-") else None
    allow_code, rest = "--allow-code" in rest, [argument for argument in rest if argument != "--allow-code"]
    saved, rest = _take(rest, "--config")
    resumed, rest = _take(rest, "--resume")
    if sum(base is not None for base in (named, saved, resumed)) > 1:
        raise InputError("give only one of RECIPE, --config FILE.yaml and --resume DIR")
    if resumed is not None:
        return _resumed(path_of(resumed), rest, allow_code=allow_code)
    source, _ = _take(rest, "--data.source")
    own = saved is None and (named == "photos" or named is None and source is not None and _is_own(source))
    base = recipe("photos" if own else named or "digits")
    if saved is not None:
        base = replace(load_config(path_of(saved), allow_code=allow_code), out=None)
    check_flags(rest, [*(f"--{name.replace('_', '-')}" for name in flatten(base)), *others])
    config = _parse_fields(rest, base)
    if own or named == "finetune":
        base = _adapted(config)
        config = _parse_fields(rest, base)
    if config.recipe != base.recipe and config.recipe in RECIPES:
        raise InputError(f"--recipe is only a label; to train {config.recipe}, use: pocketvit train {config.recipe}")
    return config


def _adapted(config: RunConfig) -> RunConfig:
    """The recipe `photos` or `finetune` for the images of a configuration, and the model that it starts with."""
    from pocketvit.data.survey import survey

    if config.recipe == "photos":
        return photos(*survey(config.data), side=config.data.resize)
    if config.init_from is None:
        raise InputError(
            "finetune starts with a trained model; give --init-from RUN, cifar10, a file of weights or hf:OWNER/NAME"
        )
    from pocketvit.inference.model_file import described

    model, side = described(config.init_from)
    return finetune(model, survey(config.data)[0], side)


def _resumed(folder: Path, rest: list[str], *, allow_code: bool) -> RunConfig:
    """The saved configuration of a run, perhaps with more passes."""
    passes, rest = _take(rest, "--schedule.passes")
    if rest:
        raise InputError(
            f"--resume uses the saved configuration and takes no other flags, such as {rest[0]}, but --schedule.passes"
        )
    file = folder / "config.yaml"
    if not file.exists():
        raise InputError(f"--resume {folder}: no run there; start one by: pocketvit train --out {quote(str(folder))}")
    config = replace(load_config(file, allow_code=allow_code), out=folder)
    if passes is None:
        return config
    if not passes.isdecimal():
        raise InputError(f"--schedule.passes takes a whole number, not {passes!r}")
    from pocketvit.training.extend import extended

    return extended(config, folder, int(passes))


def _is_own(source: str) -> bool:
    """Whether a source is a file or folder that is there, not a set known by its name."""
    from pocketvit.data.sources import is_known

    return not is_known(source) and path_of(source).exists()


def _parse_fields(arguments: list[str], base: RunConfig) -> RunConfig:
    """A configuration with some fields set by flags."""
    given = set(map(flag_of, arguments))
    renewed = {name for name in REPLACED if f"--{name.replace('_', '-')}" in given}
    base = override(base, {name: value for name, value in flatten(base).items() if name in renewed})
    config, strays = parse(
        RunConfig,
        arguments,
        "pocketvit train [RECIPE | --config FILE.yaml | --resume DIR] [--allow-code]",
        default=base,
        description=HELP.format(recipes=NAMES, about="\n\n".join(about(name) for name in RECIPES)),
        config=(tyro.conf.FlagConversionOff,),
        return_unknown_args=True,
    )
    if strays:
        which = ", ".join(strays)
        raise InputError(f"{which} belongs to no flag; a recipe comes first: pocketvit train RECIPE --FIELD VALUE")
    if "schedule.passes" in renewed and config.schedule.time_budget is not None:
        raise InputError("give only one of --schedule.passes and --schedule.time-budget, which chooses the passes")
    return config


def _long_form(argument: str) -> str:
    flag, equals, value = argument.partition("=")
    return SHORT_FORMS.get(flag, flag) + equals + value


def _take(arguments: list[str], flag: str) -> tuple[str | None, list[str]]:
    """The value of a flag, given as --flag VALUE or --flag=VALUE, and the arguments without it."""
    for i, argument in enumerate(arguments):
        if argument == flag:
            if i + 1 == len(arguments):
                raise InputError(f"{flag} needs a value")
            return arguments[i + 1], arguments[:i] + arguments[i + 2 :]
        if argument.startswith(flag + "="):
            return argument.removeprefix(flag + "="), arguments[:i] + arguments[i + 1 :]
    return None, arguments


def result_text(result: RunResult) -> str:
    """A finished run in a few lines, and what its accuracy alone hides."""
    accuracy = f"test accuracy {result.test_accuracy:.2%} after the last step"
    if result.test_map is not None:
        accuracy = f"test mAP {result.test_map:.2%} after the last step"
        accuracy += "" if result.val_map is None else f" (validation {result.val_map:.2%})"
        accuracy += f"\n{result.test_accuracy:.2%} of the test images have exactly their classes at 50 % or more"
    elif result.val_accuracy is not None:
        accuracy += f" (validation {result.val_accuracy:.2%})"
    elif len(result.curve) > 1:
        accuracy += f" (best of {len(result.curve)} evaluations: {result.best_test_accuracy:.2%})"
    if result.test_accuracy_tta is not None:
        accuracy += f"\nwith each image and its mirror averaged: {result.test_accuracy_tta:.2%}"
    seconds, speed = result.train_s, result.images_per_s
    trained = f"trained {seconds:.1f} s at {speed:,.0f} images/s on {result.device}"
    return "\n".join([accuracy, *balance_lines(vars(result)), trained])
