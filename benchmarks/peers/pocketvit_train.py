"""PocketViT: a recipe, with as many passes as the peers make."""

import tempfile

import pocketvit
from benchmarks.peers.clock import Clock
from benchmarks.peers.task import Task


class Report(pocketvit.SilentReporter):  # clock
    """Tells the clock of the steps."""  # clock

    def advance(self, steps: int) -> None:  # clock
        """More steps are done."""  # clock
        clock.step(steps * task.batch_size)  # clock

    def stop(self) -> None:  # clock
        """Training has ended."""  # clock
        clock.trained()  # clock


task = Task.read()  # clock
clock = Clock(task.passes * task.steps_per_pass * task.batch_size)  # clock
config = pocketvit.override(
    pocketvit.recipe(task.recipe),
    {"schedule.passes": task.passes, "schedule.warmup_frac": task.warmup, "train.eval_every_passes": task.passes},
)
there = {"data.source": task.source, "train.device": task.device, "out": tempfile.mkdtemp()}  # clock
config = pocketvit.override(config, there)  # clock
result = pocketvit.train(config, Report())
clock.result(result.test_accuracy)
