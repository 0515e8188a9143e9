"""Time training as the races of small networks do: compiled, warm, from the data in the host's memory to the last update.

    python -m benchmarks.speedrun [RECIPE] [--seeds 10] [--source cifar10] [--out FILE.json] [--NAME VALUE ...]

First the recipe trains some steps on random labels, which compiles and captures everything. Then each seed starts
from nothing, and its clock contains: the images' way to the GPU, the initial weights, whitening, all random numbers,
augmentation and every step; with `schedule.sides`, also the capture for each size. Evaluation comes after the clock.
The rules are those of airbench (https://github.com/KellerJordan/cifar10-airbench), where the mean and the spread of the
pixels are constants as well.

What the first, cold run of a command takes in all is `total_s` in its result.json.
"""

import argparse
import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pocketvit.augment.batch import Chunk
from pocketvit.config import RunConfig, override
from pocketvit.data import Splits, open_splits
from pocketvit.device import choose_device, device_name, synchronize
from pocketvit.inference.logits import accuracy, predict_logits
from pocketvit.loading.chunks import Chunks
from pocketvit.loading.loader import TrainLoader
from pocketvit.recipes import recipe
from pocketvit.runs.provenance import environment
from pocketvit.training.progress import SilentReporter
from pocketvit.training.setup import PATCH_INITS, make_loader, make_model
from pocketvit.training.trainer import Trainer


class WarmRecipe:
    """A recipe whose kernels are compiled and whose step is captured, to be trained with many seeds.

    Args:
        config: the recipe; classification without a start or a teacher.
        splits: the images; they are left in the host's memory.
    """

    def __init__(self, config: RunConfig, splits: Splits, device: torch.device) -> None:
        self.config, self.splits, self.device = config, splits, device
        labels = np.random.default_rng(0).permutation(splits.train.labels)  # as many of each class, for `data.balance`
        warm = replace(splits, train=replace(splits.train, labels=labels))
        self.trainer = Trainer(config, warm, device, SilentReporter())
        self.blank = {name: tensor.clone() for name, tensor in self.trainer.step.state().items()}
        self.trainer.model.train()
        self._steps(self.trainer.chunks.load(0, 0, self.trainer.loader.chunk_steps), side=config.schedule.side(0))
        synchronize(device)

    def _steps(self, chunk: Chunk, side: int | None) -> None:
        self.trainer.step.use_side(side)
        self.trainer.step.set_chunk(chunk)
        for _ in range(chunk.num_steps):
            self.trainer.step()

    def train(self, seed: int) -> float:
        """Train from nothing; returns the seconds."""
        began = time.perf_counter()
        config = override(self.config, {"seed": seed})
        trainer = self.trainer
        loader = make_loader(config, self.splits.train, self.device)
        trainer.step.load_state(self.blank | self._initial(config, loader))
        chunks = Chunks(config, loader, trainer.objective.num_draws)
        steps = 0
        with ThreadPoolExecutor(max_workers=2) as threads:
            for chunk in chunks.remaining(threads, 0, 0):
                self._steps(chunk, config.schedule.side(steps // loader.steps_per_pass))
                steps += chunk.num_steps
        synchronize(self.device)
        return time.perf_counter() - began

    def _initial(self, config: RunConfig, loader: TrainLoader) -> dict[str, Tensor]:
        """The tensors of the step's state that a seed decides."""
        model = make_model(config, self.splits, self.device)
        PATCH_INITS[config.model.patch_init](model, loader, self.trainer.mean, self.trainer.std)
        return {f"model.{name}": tensor for name, tensor in model.state_dict().items()}

    def accuracy(self) -> float:
        """Of the trained model on the test images, 0 to 1."""
        trainer = self.trainer
        logits = predict_logits(trainer.averaged(), self.splits.test.images, trainer.mean, trainer.std)
        trainer.model.train()
        return accuracy(logits, self.splits.test.labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="minute")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--source")
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="change a field, as in --set depth=6"
    )
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    changes = dict(change.split("=", 1) for change in arguments.set)
    config = override(recipe(arguments.recipe), {name: json.loads(value) for name, value in changes.items()})
    if arguments.source:
        config = override(config, {"data.source": arguments.source})
    device = choose_device(config.train.device)
    warm = WarmRecipe(config, open_splits(config.data), device)
    runs = []
    for seed in range(arguments.seeds):
        seconds = warm.train(seed)
        runs.append({"seed": seed, "seconds": seconds, "test_accuracy": warm.accuracy()})
        print(f"seed {seed}: {seconds:.2f} s, {runs[-1]['test_accuracy']:.2%}", flush=True)
    for key, unit in (("seconds", 1), ("test_accuracy", 100)):
        values = [unit * run[key] for run in runs]
        spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        print(f"{key}: {statistics.fmean(values):.3f}{spread}")
    if arguments.out:
        env = environment(device_name(device))
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        content = env | {"recipe": arguments.recipe, "set": changes, "runs": runs}
        arguments.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
