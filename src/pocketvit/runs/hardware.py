"""The hardware of runs, because times on different hardware must not be averaged."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from pocketvit.runs.result import RunResult

_THREADS = re.compile(r" \(\d+ threads?\)$")


class Hardware(NamedTuple):
    """The hardware of several runs."""

    usual: str | None  # the most frequent one, by `machine`; in a tie that of the first run; None without runs
    others: dict[str, int]  # number of runs on other hardware, by its name

    def counts(self, result: RunResult | None) -> bool:
        """Whether a run's times and memory count: it exists, and was trained on the usual hardware."""
        return result is not None and machine(result) == self.usual

    def said_of_others(self) -> str:
        """The other hardware in words."""
        return ", ".join(f"{n} on {name}" for name, n in self.others.items())


def hardware(results: Iterable[RunResult]) -> Hardware:
    """Count the hardware of runs, given their results."""
    counted = Counter(map(machine, results)).most_common()
    return Hardware(counted[0][0] if counted else None, dict(counted[1:]))


def device(result: RunResult) -> str:
    """The device of a run, with the number of GPUs if there were several."""
    return (f"{result.num_gpus} × " if result.num_gpus > 1 else "") + result.device


def machine(result: RunResult) -> str:
    """The device without its number and its threads, of which small models use fewer."""
    return _THREADS.sub("", result.device)
