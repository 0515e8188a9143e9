"""What runs were trained on: the times of different hardware are not to be mixed into one mean."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from pocketvit.runs.result import RunResult

_THREADS = re.compile(r" \(\d+ threads?\)$")


class Hardware(NamedTuple):
    """What a number of runs were trained on."""

    usual: str | None  # that of most of them, as `machine` names it; of several the first run's. None without a run.
    others: dict[str, int]  # how many were trained on anything else, by what that was

    def counts(self, result: RunResult | None) -> bool:
        """Whether a run's times and memory count beside the others': it is there, and was trained on the usual hardware."""
        return result is not None and machine(result) == self.usual

    def said_of_others(self) -> str:
        """The others in words."""
        return ", ".join(f"{n} on {name}" for name, n in self.others.items())


def hardware(results: Iterable[RunResult]) -> Hardware:
    """Count what runs were trained on, given their results."""
    counted = Counter(map(machine, results)).most_common()
    return Hardware(counted[0][0] if counted else None, dict(counted[1:]))


def device(result: RunResult) -> str:
    """What a run was trained on, with the number of GPUs if there were several."""
    return (f"{result.num_gpus} × " if result.num_gpus > 1 else "") + result.device


def machine(result: RunResult) -> str:
    """The device alone: without its number, and without the threads, of which a small model takes fewer."""
    return _THREADS.sub("", result.device)
