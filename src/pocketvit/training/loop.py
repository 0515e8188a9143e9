"""A run from configuration to result.

    open the data and the run folder  ->  build model, optimizers, step  ->  pass by pass: plan, load, step,
    log, evaluate, save  ->  test, report, result.json
"""

import time
from typing import Any

import torch

from pocketvit.config import RunConfig, config_hash
from pocketvit.data import open_splits
from pocketvit.errors import InputError
from pocketvit.training.device import choose_device, device_name, peak_memory_gib
from pocketvit.training.finish import save_figures, write_result
from pocketvit.training.progress import Reporter, Silent
from pocketvit.training.runlog import RunFolder, environment
from pocketvit.training.trainer import Trainer


def train(config: RunConfig, reporter: Reporter | None = None) -> dict[str, Any]:
    """Train a model as `config` says and write its run folder.

    Returns:
        the content of result.json.
    Raises:
        InputError: something in the configuration or the data cannot be used, or the loss stopped being finite.
        Stopped: a signal came; the run is saved.
    """
    started = time.perf_counter()
    reporter = reporter or Silent()
    device = choose_device(config.train.device)
    splits = open_splits(config.data)
    for note in splits.notes:
        reporter.note(note)
    trainer = Trainer(config, splits, device, reporter)
    trainer.folder = RunFolder.open(config, splits.fingerprint)
    reporter.note(f"run folder: {trainer.folder.path}")
    env = environment(device_name(device))
    trainer.folder.write_json(trainer.folder.env, env)
    out_of_memory = False
    try:
        trainer.resume()
        trainer.run()
    except torch.cuda.OutOfMemoryError:
        out_of_memory = True  # while the exception is handled, its traceback keeps the failed step's memory
    finally:
        reporter.stop()
    if out_of_memory:
        fits = trainer.largest_batch()
        advice = f"about batch_size={fits} would fit" if fits else "not even a small batch fits this GPU"
        raise InputError(f"out of GPU memory at batch_size={config.batch_size}; {advice}")
    summary = {
        "recipe": config.recipe,
        "seed": config.seed,
        "config_hash": config_hash(config, splits.fingerprint),
        "data_fingerprint": splits.fingerprint,
        "num_params": trainer.model.num_params,
        "num_gpus": 1 if device.type == "cuda" else 0,
        "train_s": trainer.train_s,
        "images_seen": int(trainer.step.step) * config.batch_size,
        "peak_memory_gib": peak_memory_gib(device),
        "device": env["device"],
        "versions": env["versions"],
        "commit": env["commit"],
        "command": env["command"],
    }
    save_figures(trainer.folder.figures, trainer.model, trainer.filters)
    return write_result(trainer.folder, trainer.trained(), splits, trainer.loader, summary, started)
